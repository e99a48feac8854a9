//! The beginning of an upload, read before it is known where it goes: OpenAI's form names its model in the body.

use std::collections::VecDeque;

use bytes::Bytes;
use pingora::proxy::Session;

use super::body::Body;
use super::pace::Pace;
use super::transcribe::Ended;
use crate::accept::{SIP, Turn};
use crate::translate::{Boundary, Limits, Peek, Peeked};

/// What Pingora can send again of a body that was read before its upstream was chosen.
const REPLAYED: usize = 64 * 1024;

/// What has been read.
#[derive(Default)]
pub(super) struct Ahead {
    /// The pieces, for a translator.
    pub(super) pieces: VecDeque<Bytes>,
    /// The model, if it came before the file.
    pub(super) model: Option<String>,
}

/// Reads as far as the model, the file, or as much as can be sent again. Pingora keeps it for a service.
///
/// # Errors
/// The client's body does not come, or breaks off.
pub(super) async fn read_ahead(
    session: &mut Session,
    turn: Option<&Turn>,
    boundary: &Boundary,
    limits: &Limits,
    mut pace: Pace,
) -> Result<Ahead, Ended> {
    session.as_downstream_mut().enable_retry_buffering();
    let mut body = Body::Client(session);
    // HTTP/2 gives a frame at a time, which is no longer than this.
    let sips = |on| turn.into_iter().for_each(|turn| turn.sip(on));
    sips(true);
    let mut peek = Peek::new(boundary, limits);
    let mut ahead = Ahead::default();
    let mut room = REPLAYED;
    while room >= SIP {
        let Some(piece) = pace.read(&mut body).await? else { break };
        room = room.saturating_sub(piece.len());
        ahead.pieces.push_back(piece.clone());
        match peek.push(piece) {
            Peeked::More => {}
            Peeked::Nothing => break,
            Peeked::Model(model) => {
                ahead.model = Some(model);
                break;
            }
        }
    }
    sips(false);
    Ok(ahead)
}
