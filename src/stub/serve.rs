//! What the stand-in does with one request.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::contract::{self, Breach};
use super::hear::{Heard, hear};
use super::intake::{End, Intake};
use super::line::{Ending, Line};
use super::script::{Drop, Script, Stage, Turn};
use super::seen::{Entry, Log};
use super::speech::{self, Dropped, Speech};

const PATH: &str = "/backend-api/transcribe";
const LONGEST_SCRIPT: usize = 256 * 1024;

/// What all connections share.
pub(super) struct House {
    pub(super) stage: Stage,
    pub(super) log: Arc<Log>,
    pub(super) require_length: bool,
    pub(super) hash: bool,
}

/// Answers one request.
///
/// # Errors
/// When hyper is to end the connection (HTTP/2: the stream) instead.
pub(super) async fn serve(
    house: Arc<House>,
    line: Line,
    request: Request<Incoming>,
) -> Result<Response<Speech>, Dropped> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => Ok(speech::json(StatusCode::OK, r#"{"status":"ok"}"#)),
        (&Method::GET, "/seen") => Ok(speech::json(StatusCode::OK, house.log.json())),
        (&Method::DELETE, "/seen") => {
            house.log.forget();
            Ok(speech::json(StatusCode::OK, "{}"))
        }
        (&Method::POST, "/script") => Ok(rehearse(&house, request.into_body()).await),
        (method, path) => {
            let known = path == PATH;
            let wrong = match (known, method == Method::POST) {
                (true, true) => None,
                (true, false) => Some(StatusCode::METHOD_NOT_ALLOWED),
                (false, _) => Some(StatusCode::NOT_FOUND),
            };
            let (head, body) = request.into_parts();
            let entry = house.log.enter(line.number, &head);
            if let Some(status) = wrong {
                entry.record().status = Some(status.as_u16());
                return Ok(speech::detail(status, status.canonical_reason().unwrap_or_default()));
            }
            let script = house.stage.next();
            Call { house: &house, line: &line, script: &script, head: &head, entry: &entry }
                .answer(body)
                .await
        }
    }
}

/// Takes a new script.
async fn rehearse(house: &House, body: Incoming) -> Response<Speech> {
    let Ok(json) = Limited::new(body, LONGEST_SCRIPT).collect().await else {
        return speech::detail(StatusCode::BAD_REQUEST, "the script did not come whole");
    };
    match Script::parse(&json.to_bytes()) {
        Ok(script) => {
            house.stage.set(script);
            speech::json(StatusCode::OK, "{}")
        }
        Err(fault) => speech::detail(StatusCode::BAD_REQUEST, &fault),
    }
}

/// One transcription request.
struct Call<'a> {
    house: &'a House,
    line: &'a Line,
    script: &'a Script,
    head: &'a request::Parts,
    entry: &'a Entry,
}

impl Call<'_> {
    async fn answer(&self, body: Incoming) -> Result<Response<Speech>, Dropped> {
        if let Some(status) = self.script.informational.filter(|_| !self.http2()) {
            self.line.inform(status);
            // A turn of the event loop, so that it goes out before the answer and not with it.
            tokio::task::yield_now().await;
        }
        let verdict = contract::head(self.head, self.house.require_length);
        self.note(&verdict);
        let boundary = contract::boundary(&self.head.headers).unwrap_or_default();
        let (limit, turn) = self.script.turn().unzip();
        let rate = self.script.slow_read;
        let mut intake = Intake::new(body, self.entry.clone(), &boundary, limit, rate);

        let cut = intake.cut();
        let heard = match &verdict {
            Err(breach) if boundary.is_empty() => Err(breach.clone()),
            _ => tokio::select! {
                biased;
                heard = hear(&mut intake, &boundary, self.house.hash, self.entry) => heard,
                () = cut.notified() => Err(Breach::new("the body was cut short")),
            },
        };
        match intake.finish().await {
            End::Gone => return Err(Dropped),
            End::Limit => return self.turn(turn, intake).await,
            End::Whole => {}
        }
        self.entry.record().complete = intake.closed();
        let verdict = verdict.and_then(|()| intake.edges().map_err(Breach::new)).and(heard);
        self.note(&verdict);

        if self.script.drop == Some(Drop::BeforeAnswer) {
            return self.drop_line();
        }
        if self.script.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.script.delay_ms)).await;
        }
        match verdict {
            Ok(heard) => Ok(self.speak(&heard)),
            Err(breach) => Ok(self.said(speech::json(breach.status, breach.body()))),
        }
    }

    /// What the script does before the body has been read whole.
    async fn turn(&self, turn: Option<Turn>, intake: Intake) -> Result<Response<Speech>, Dropped> {
        match turn {
            Some(Turn::Drop) => self.drop_line(),
            Some(Turn::Answer) => {
                self.hold(intake);
                Ok(self.speak(&Heard::default()))
            }
            Some(Turn::Stall) | None => {
                tokio::select! {
                    () = tokio::time::sleep(self.script.hold()) => {}
                    () = self.line.gone() => {}
                }
                self.drop_line()
            }
        }
    }

    /// Keeps an unread body from being drained, and with it the connection open, for a while.
    fn hold(&self, intake: Intake) {
        let (line, hold, http2) = (self.line.clone(), self.script.hold(), self.http2());
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(hold) => {}
                () = line.gone() => {}
            }
            if !http2 {
                line.end(Ending::Now);
            }
            std::mem::drop(intake);
        });
    }

    fn drop_line(&self) -> Result<Response<Speech>, Dropped> {
        if self.script.hang_up || !self.http2() {
            self.line.end(Ending::Now);
        }
        Err(Dropped)
    }

    fn speak(&self, heard: &Heard) -> Response<Speech> {
        let language = heard.language.as_ref().map(|language| format!(" in {language}")).unwrap_or_default();
        let default = || format!("heard {} bytes of {}{language}", heard.bytes, heard.extension);
        let text = self.script.text.clone().unwrap_or_else(default);
        self.said(speech::scripted(self.script, &text))
    }

    /// Notes the answer, and says with it that the connection ends when it does.
    fn said(&self, mut response: Response<Speech>) -> Response<Speech> {
        self.entry.record().status = Some(response.status().as_u16());
        if self.script.close && self.http2() {
            self.line.end(Ending::Gently);
        } else if self.script.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn note<T>(&self, verdict: &Result<T, Breach>) {
        if let Err(breach) = verdict {
            self.entry.record().breach = Some(breach.what.clone());
        }
    }

    fn http2(&self) -> bool {
        self.head.version == Version::HTTP_2
    }
}
