//! Where an upload goes: to Codex, to a service that speaks as it does, or through to one that speaks OpenAI's API.

use std::sync::Arc;

use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::admission::{Announced, check_upload, client_patience, wants_continue};
use super::ahead::{Ahead, read_ahead};
use super::backend::Backend;
use super::body::Body;
use super::health::settle;
use super::pace::Pace;
use super::passage::Passage;
use super::record::Heard;
use super::services::Service;
use super::transcribe::{Ended, Transcription};
use super::{Ctx, Gateway};
use crate::answer::{Fault, Reply};
use crate::base::{clock, random};
use crate::route;
use crate::translate::{Shape, Terms, Translator};

impl Gateway {
    /// A transcription; `None` when it passes through to a service.
    pub(super) async fn transcribe(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        shape: Shape,
        model: Option<String>,
    ) -> Result<Option<Reply>, Ended> {
        let announced = check_upload(&session.as_downstream().req_header().headers, &self.limits)?;
        let mut ahead = Ahead::default();
        let service = match &model {
            Some(model) => self.services.of_model(model),
            // Codex's own form names no model.
            None if shape == Shape::OpenAi && self.services.have_models() => {
                ahead = self.read_ahead(session, ctx, &announced).await?;
                ahead.model.as_deref().and_then(|model| self.services.of_model(model))
            }
            None => None,
        };
        if let Some(service) = &service {
            ctx.record.service = Some(Arc::clone(&service.name));
            ctx.record.model = model.clone().or_else(|| ahead.model.clone());
        }
        match service {
            None => self.translate(session, ctx, &self.codex, announced, ahead, shape, model).await.map(Some),
            Some(service) => match &service.codex {
                Some(backend) => {
                    self.translate(session, ctx, backend, announced, ahead, shape, model).await.map(Some)
                }
                None => self.pass_upload(session, ctx, service, "transcriptions").await,
            },
        }
    }

    /// A translation: Codex has none, a service may.
    pub(super) async fn translation(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
    ) -> Result<Option<Reply>, Ended> {
        let mut service = None;
        if self.services.have_models() {
            let announced = check_upload(&session.as_downstream().req_header().headers, &self.limits)?;
            let ahead = self.read_ahead(session, ctx, &announced).await?;
            service = ahead.model.as_deref().and_then(|model| self.services.of_model(model));
            ctx.record.model = ahead.model.filter(|_| service.is_some());
        }
        match service.filter(|service| service.codex.is_none()) {
            Some(service) => self.pass_upload(session, ctx, service, "translations").await,
            None => Err(Fault::NoTranslations.into()),
        }
    }

    /// Any request below a service's prefix.
    pub(super) async fn pass(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        service: Arc<Service>,
    ) -> Result<Option<Reply>, Ended> {
        let uri = &session.as_downstream().req_header().uri;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = route::below(&service.url.path, target);
        self.begin_passage(session, ctx, Passage::new(service, target, !self.keys.is_open())).await
    }

    async fn pass_upload(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        service: Arc<Service>,
        what: &str,
    ) -> Result<Option<Reply>, Ended> {
        let query = session.as_downstream().req_header().uri.query();
        let target = route::endpoint_below(&service.url.path, what, query);
        let passage = Passage::new(service, target, !self.keys.is_open())
            .within(self.limits.upload, Pace::new(&self.deadlines));
        self.begin_passage(session, ctx, passage).await
    }

    async fn begin_passage(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        passage: Passage,
    ) -> Result<Option<Reply>, Ended> {
        go_ahead(session).await?;
        let downstream = session.as_downstream_mut();
        if downstream.retry_buffer_truncated() {
            return Err(Fault::Internal.into());
        }
        let patience = (!downstream.is_upgrade_req()).then_some(self.deadlines.body);
        downstream.set_read_timeout(patience);
        ctx.record.service = Some(Arc::clone(&passage.service.name));
        ctx.passage = Some(passage);
        Ok(None)
    }

    async fn read_ahead(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        announced: &Announced,
    ) -> Result<Ahead, Ended> {
        go_ahead(session).await?;
        let turn = ctx.turn.as_deref();
        read_ahead(session, turn, &announced.boundary, &self.limits, Pace::new(&self.deadlines)).await
    }

    /// Admits an upload to a backend, then carries it through.
    #[expect(clippy::too_many_arguments, reason = "all that is known of the upload by now")]
    async fn translate(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        backend: &Backend,
        announced: Announced,
        ahead: Ahead,
        shape: Shape,
        model: Option<String>,
    ) -> Result<Reply, Ended> {
        if let Some(name) = model.as_ref().filter(|name| !backend.models.knows(name)) {
            return Err(Fault::ModelNotFound(name.clone()).into());
        }
        let upstream = &backend.upstream;
        let login = upstream.credential.current().map_err(Fault::from)?;
        // Refused at once, not after a wait in the queue; and once more when it is over.
        upstream.breakers.check(login.generation, clock::instant()).map_err(Fault::from)?;
        let _place =
            upstream.queue.enter().await.map_err(|busy| Fault::Busy { retry_after: busy.retry_after })?;
        let pass = upstream.breakers.enter(login.generation, clock::instant()).map_err(Fault::from)?;
        ctx.record.admitted();
        go_ahead(session).await?;
        let heard = Heard::default();
        let terms = Terms {
            length: announced.length,
            seed: random::fill(),
            shape,
            models: Arc::clone(&backend.models),
            model,
            language: self.language.clone(),
            limits: self.limits.clone(),
        };
        // It has been waiting in the queue already.
        let waits = client_patience(&session.as_downstream().req_header().headers)
            .map(|patience| patience.saturating_sub(ctx.record.elapsed()));
        let transcription = Transcription {
            dialer: &backend.dialer,
            upstream,
            heard: &heard,
            deadlines: self.deadlines.within(waits),
            pace: Pace::new(&self.deadlines),
            login,
            translator: Translator::new(&announced.boundary, terms),
            ahead: ahead.pieces,
        };
        let mut outcome = transcription.run(&mut Body::Client(session), &mut ctx.record).await;
        let said = heard.into_inner();
        settle(pass, &mut outcome, &said, clock::instant());
        ctx.record.heard(said);
        outcome
    }
}

/// Tells a client that waits for it to send its body; once.
async fn go_ahead(session: &mut Session) -> Result<(), Ended> {
    let downstream = session.as_downstream_mut();
    if wants_continue(downstream.req_header()) && downstream.response_written().is_none() {
        // Pingora takes any answer before the body's end for the connection's last one: it must not look for once.
        closes_early(downstream, false);
        let written = downstream.write_continue_response().await;
        closes_early(downstream, true);
        written.map_err(|_| Ended::Gone)?;
    }
    Ok(())
}

fn closes_early(downstream: &mut ServerSession, closes: bool) {
    if let ServerSession::H1(h1) = downstream {
        h1.set_close_on_response_before_downstream_finish(closes);
    }
}
