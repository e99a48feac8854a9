//! What happens to a request, part by part.
#![allow(dead_code, reason = "called by the flow of all requests, which is built on these parts")]

mod admission;
mod body;
mod delivery;
mod exchange;
mod health;
pub mod offline;
mod pace;
mod record;
mod transcribe;
mod tunnel;
