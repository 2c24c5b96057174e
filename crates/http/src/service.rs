//! Takes the requests of one connection: what is too much is refused, the rest led to what serves it.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use purista_core::detaching::Detaching;
use purista_core::health::Health;
use purista_core::lag::Lags;
use purista_core::trace::TraceContext;
use tokio::sync::OwnedSemaphorePermit;

use crate::authenticator::RequestHead;
use crate::body;
use crate::buffered::PeerBuffered;
use crate::cors::Cors;
use crate::endpoint::Endpoint;
use crate::exchange::Exchange;
use crate::health;
use crate::metrics;
use crate::parameter;
use crate::pulse::{Busy, Pulse};
use crate::response::{self, Answer, Flow, Problem, TRACE_ID, Whole};
use crate::route::Place;
use crate::served::{Page, Served};
use crate::site::Site;
use crate::traced;

/// What separates name and value of a header field, and it from the next.
const FIELD_SEPARATORS: usize = 4;

/// Where one connection hands in its requests.
pub(crate) struct Desk {
    pub(crate) site: Arc<Site>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) peer: SocketAddr,
    pub(crate) buffered: Arc<PeerBuffered>,
}

impl hyper::service::Service<Request<Incoming>> for Desk {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let busy = self.pulse.request();
        let (parts, body) = request.into_parts();
        let trace = trace_context(&parts.headers);
        let flow = flow(&self.site, &parts.headers, trace.as_ref());
        let last_touch = LastTouch::of(&self.site, &parts);
        let step = match catch_unwind(AssertUnwindSafe(|| self.receive(parts, body, trace, &flow))) {
            Ok(Received::Answer(answer)) => Step::Answered(Some(last_touch.to(answer))),
            Ok(Received::Command(command)) => {
                let tasks = self.site.house.tasks.clone();
                Step::Answering(Detaching::new(run(command, flow, last_touch), tasks))
            }
            Ok(Received::Metrics(permit)) => {
                let house = &self.site.house;
                let (lags, tasks) = (house.lags.clone(), house.tasks.clone());
                Step::Answering(Detaching::new(measure(lags, permit, flow, last_touch), tasks))
            }
            Ok(Received::Probe(probe)) => {
                let (health, is_stopping) =
                    (self.site.house.health.clone(), self.site.house.stop.is_cancelled());
                let tasks = self.site.house.tasks.clone();
                Step::Answering(Detaching::new(examine(probe, health, is_stopping, flow, last_touch), tasks))
            }
            Err(panic) => Step::Answered(Some(last_touch.to(panicked(&*panic, &flow)))),
        };
        Answering { step, busy }
    }
}

/// What a request asks for.
enum Found {
    /// A command, with its parameters.
    Command(Arc<Endpoint>, Option<Bytes>),
    /// The figures, which have to be measured.
    Metrics,
    /// Whether the host lives, or is ready: its parts have to be asked.
    Probe(Probe),
    /// Something that needs no command.
    Answer(Answer),
}

/// What a probe asks.
#[derive(Debug, Clone, Copy)]
enum Probe {
    Alive,
    Ready,
}

/// What becomes of a request at first sight.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one call; a box would cost each request an allocation"
)]
enum Received {
    Answer(Answer),
    Command(Exchange),
    Metrics(OwnedSemaphorePermit),
    Probe(Probe),
}

/// Runs a command to its end, also when its caller is gone.
fn run(exchange: Exchange, flow: Flow, last_touch: LastTouch) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let span = traced::span_of(&exchange.endpoint, exchange.trace.as_ref(), &flow);
        let answering = async {
            let answered = AssertUnwindSafe(exchange.answer(&flow)).catch_unwind().await;
            answered.unwrap_or_else(|panic| panicked(&*panic, &flow))
        };
        let answer =
            if span.is_none() { answering.await } else { Box::pin(traced::answering(span, answering)).await };
        last_touch.to(answer)
    })
}

/// Measures; it keeps a place among the requests under way, since it reads the log.
fn measure(
    lags: Lags,
    permit: OwnedSemaphorePermit,
    flow: Flow,
    last_touch: LastTouch,
) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let answer = metrics::answer(&lags, &flow).await;
        drop(permit);
        last_touch.to(answer)
    })
}

/// Answers a probe. It takes no place among the requests under way: a host that is busy lives.
fn examine(
    probe: Probe,
    health: Health,
    is_stopping: bool,
    flow: Flow,
    last_touch: LastTouch,
) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        last_touch.to(match probe {
            Probe::Alive => health::alive(&health, &flow).await,
            Probe::Ready => health::ready(&health, is_stopping, &flow).await,
        })
    })
}

#[cold]
fn panicked(panic: &(dyn Any + Send), flow: &Flow) -> Answer {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(trace_id = %flow.id, panic = text.unwrap_or("no text"), "a request panicked");
    Problem::internal().into_answer(flow)
}

impl Desk {
    fn receive(&self, parts: Parts, body: Incoming, trace: Option<TraceContext>, flow: &Flow) -> Received {
        let admitted = match self.look_up(&parts, flow) {
            Ok(Found::Answer(answer)) => {
                self.leave(&parts.method, body);
                return Received::Answer(answer);
            }
            Ok(Found::Probe(probe)) => {
                self.leave(&parts.method, body);
                return Received::Probe(probe);
            }
            Ok(Found::Metrics) => {
                self.leave(&parts.method, body);
                return match self.site.admit() {
                    Ok(permit) => Received::Metrics(permit),
                    Err(problem) => Received::Answer(problem.into_answer(flow)),
                };
            }
            // Nothing is read for a command that cannot run now; its permit is taken when the body is here.
            Ok(Found::Command(..)) if self.site.in_flight.available_permits() == 0 => Err(Site::busy()),
            Ok(Found::Command(endpoint, parameter)) => Ok((endpoint, parameter)),
            Err(problem) => Err(problem),
        };
        match admitted {
            Ok((endpoint, parameter)) => {
                let head = RequestHead { parts, peer: self.peer };
                let site = Arc::clone(&self.site);
                let (pulse, buffered) = (Arc::clone(&self.pulse), Arc::clone(&self.buffered));
                Received::Command(Exchange { site, endpoint, head, body, parameter, trace, pulse, buffered })
            }
            Err(problem) => {
                self.leave(&parts.method, body);
                Received::Answer(problem.into_answer(flow))
            }
        }
    }

    fn leave(&self, method: &Method, body: Incoming) {
        if body::may_have_body(method) {
            body::swallow(body, &self.site.house.tasks);
        }
    }

    fn look_up(&self, parts: &Parts, flow: &Flow) -> Result<Found, Problem> {
        self.check_size(parts)?;
        let Some((place, values)) = self.site.routes.find(parts.uri.path()) else {
            return Err(Problem::new(StatusCode::NOT_FOUND, "nothing is served here"));
        };
        if self.site.cors.is_some() && Cors::is_preflight(&parts.method, &parts.headers) {
            return Ok(Found::Answer(Cors::preflight(&place.allow(), flow)));
        }
        Ok(Found::Answer(match place.served(&parts.method) {
            None => return Err(not_allowed(place)),
            Some(Served::Command(endpoint)) => {
                let names = endpoint.path_names.iter().copied();
                let path: Vec<_> = names.zip(values).collect();
                let parameter =
                    parameter::object(&path, parts.uri.query(), &endpoint.query_names).map_err(|_| {
                        Problem::new(StatusCode::BAD_REQUEST, "the URL is not percent-encoded UTF-8")
                    })?;
                return Ok(Found::Command(Arc::clone(endpoint), parameter));
            }
            Some(Served::Page(page)) => page_answer(page, flow),
            Some(Served::Document(json)) => {
                response::api_answer(StatusCode::OK, flow, Some(response::JSON), json.clone())
            }
            Some(Served::Metrics) => return Ok(Found::Metrics),
            Some(Served::Alive) => return Ok(Found::Probe(Probe::Alive)),
            Some(Served::Ready) => return Ok(Found::Probe(Probe::Ready)),
        }))
    }

    fn check_size(&self, parts: &Parts) -> Result<(), Problem> {
        let limits = &self.site.limits;
        let url_bytes = parts.uri.path().len() + parts.uri.query().map_or(0, |query| query.len() + 1);
        if url_bytes > limits.url_bytes {
            let what = format!("a URL has at most {} bytes", limits.url_bytes);
            return Err(Problem::new(StatusCode::URI_TOO_LONG, what));
        }
        let fields = parts.headers.iter();
        let bytes: usize =
            fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_SEPARATORS).sum();
        if parts.headers.len() > limits.headers || bytes > limits.header_bytes {
            let what = format!(
                "a request has at most {} header fields of {} bytes",
                limits.headers, limits.header_bytes
            );
            return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what));
        }
        Ok(())
    }
}

fn not_allowed(place: &Place) -> Problem {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not served here");
    match HeaderValue::from_str(&place.allow()) {
        Ok(allow) => problem.with_header(header::ALLOW, allow),
        Err(_) => problem,
    }
}

fn page_answer(page: &Page, flow: &Flow) -> Answer {
    let mut answer =
        response::api_answer(StatusCode::OK, flow, Some(page.media_type.clone()), page.body.clone());
    let headers = answer.headers_mut();
    // A page is the same for everybody; asked for again, it may have changed with a new version of the program.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, page.policy.clone());
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    answer
}

/// The flow that a request names, else that of its technical trace, so that logs, messages and spans show one id; else
/// a new one.
fn flow(site: &Site, headers: &HeaderMap, trace: Option<&TraceContext>) -> Flow {
    if let Some(flow) = headers.get(&TRACE_ID).and_then(Flow::of_header) {
        return flow;
    }
    Flow::of_id(trace.map_or_else(|| site.house.clock.id(), TraceContext::trace_id))
}

fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let state = headers.get("tracestate").and_then(|state| state.to_str().ok());
    TraceContext::parse(parent, state)
}

/// What every answer gets at last, whatever it is.
struct LastTouch {
    is_head: bool,
    cross_origin: Option<(Arc<Site>, Option<HeaderValue>)>,
}

impl LastTouch {
    fn of(site: &Arc<Site>, parts: &Parts) -> Self {
        let origin = || parts.headers.get(header::ORIGIN).cloned();
        let cross_origin = site.cors.is_some().then(|| (Arc::clone(site), origin()));
        Self { is_head: parts.method == Method::HEAD, cross_origin }
    }

    fn to(self, mut answer: Answer) -> Answer {
        if let Some((site, origin)) = &self.cross_origin
            && let Some(cors) = &site.cors
        {
            cors.mark(origin.as_ref(), &mut answer);
        }
        if !self.is_head {
            return answer;
        }
        // A HEAD tells how long the body would be, without it.
        let length = HeaderValue::from(answer.body().len());
        if answer.status() != StatusCode::NO_CONTENT {
            answer.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        answer.map(|_| Whole::default())
    }
}

/// An answer that is there, or one that is being made. Dropped, the making goes on without it.
pub(crate) struct Answering {
    step: Step,
    busy: Busy,
}

enum Step {
    Answered(Option<Answer>),
    Answering(Detaching<BoxFuture<'static, Answer>>),
}

impl Future for Answering {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = match &mut self.step {
            // Polled after its end it gives an empty answer; hyper never does so.
            Step::Answered(answer) => answer.take().unwrap_or_else(|| Response::new(Whole::default())),
            Step::Answering(running) => ready!(Pin::new(running).poll(cx)),
        };
        if self.busy.is_last() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}
