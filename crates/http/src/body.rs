//! Reads the body of a request: of the right kind, not too much of it, and not for too long.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use purista_core::payload::Payload;
use purista_core::schema::nests_too_deep;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::buffered::{Charge, PeerBuffered};
use crate::endpoint::{BodyForm, Endpoint};
use crate::form::text_to_json;
use crate::limits::Limits;
use crate::pulse::Pulse;
use crate::response::Problem;

/// How much of a body that nobody wants is swallowed, and for how long: a caller that still writes reads no answer.
const SWALLOWED_BYTES_MAX: usize = 1024 * 1024;
const SWALLOWING_TIME_MAX: Duration = Duration::from_secs(2);

/// What reading a body needs besides the body.
pub(crate) struct Reader<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) pulse: &'a Arc<Pulse>,
    pub(crate) buffered: &'a Arc<PeerBuffered>,
}

impl Reader<'_> {
    /// The body as the payload of a command, with what it counts among the buffered bytes. Its JSON is not decoded here: the
    /// command's dispatch does so once, and names every field at fault.
    pub(crate) async fn payload(
        &self,
        endpoint: &Endpoint,
        head: &Parts,
        body: Incoming,
    ) -> Result<(Payload, Option<Charge>), Problem> {
        let wanted = match &endpoint.body {
            BodyForm::None => {
                // What a GET carries has no meaning; it is not read.
                return Ok((endpoint.nothing.clone(), None));
            }
            BodyForm::Json => "application/json",
            BodyForm::Form(_) => "application/x-www-form-urlencoded",
            BodyForm::Text(_) => "text/plain",
        };
        let is_empty = body.is_end_stream();
        if let Err(problem) = check_kind(&head.headers, wanted, is_empty) {
            swallow(body, self.tasks);
            return Err(problem);
        }
        if is_empty && !matches!(endpoint.body, BodyForm::Text(_)) {
            return Ok((endpoint.nothing.clone(), None));
        }
        let (bytes, charge) = self.read(body, head).await?;
        Ok((payload_of(endpoint, bytes)?, charge))
    }

    async fn read(&self, mut body: Incoming, head: &Parts) -> Result<(Bytes, Option<Charge>), Problem> {
        let limits = self.limits;
        let told = body.size_hint().lower();
        let fits = usize::try_from(told).is_ok_and(|told| told <= limits.body_bytes);
        let read = if fits { self.collect(&mut body, head).await } else { Err(End::TooLarge) };
        let problem = match read {
            Ok(read) => return Ok(read),
            Err(End::TooLarge) => {
                let what = format!("a body has at most {} bytes", limits.body_bytes);
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what)
            }
            Err(End::TooSlow) => {
                let what = format!(
                    "a body must come within {} ms, and after {} ms at {} bytes per second or faster",
                    limits.body_time.as_millis(),
                    limits.body_rate_after.as_millis(),
                    limits.body_rate
                );
                Problem::new(StatusCode::REQUEST_TIMEOUT, what).with_header(header::CONNECTION, close())
            }
            Err(End::Full) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many bodies are being read; nothing was done, try again later",
            ),
            Err(End::Broken) => {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "the body could not be read to its end"));
            }
        };
        swallow(body, self.tasks);
        Err(problem)
    }

    /// The whole body. The first look never finds one, because hyper reads a body only once it is asked for; the second one
    /// nearly always does, and only after it a timer and the bound of buffered bytes are worth their cost.
    async fn collect(&self, body: &mut Incoming, head: &Parts) -> Result<(Bytes, Option<Charge>), End> {
        let mut gathered = Gathered::default();
        let early = {
            let mut reading = pin!(gathered.fill(body, self.limits.body_bytes));
            let mut looks = 0;
            poll_fn(|cx| match reading.as_mut().poll(cx) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending if looks == 0 => {
                    looks = 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Ready(None),
            })
            .await
        };
        if let Some(read) = early {
            return read.map(|()| (gathered.whole(), None));
        }
        let began = Instant::now();
        let _reading = self.pulse.reading();
        let mut charge = Charge::to(self.buffered);
        charge.add(head_bytes(head).saturating_add(gathered.len())).map_err(|_| End::Full)?;
        loop {
            let part = tokio::time::timeout_at(began + self.time_for(gathered.len()), next(body)).await;
            let Some(part) = part.unwrap_or(Err(End::TooSlow))? else { break };
            charge.add(part.len()).map_err(|_| End::Full)?;
            gathered.add(part, self.limits.body_bytes)?;
        }
        Ok((gathered.whole(), Some(charge)))
    }

    /// How long a body may have taken of which this much is here: the time at any rate, and what the least rate allows for the
    /// bytes (as `RequestReadTimeout body=5,MinRate=1024` of Apache does), up to the time for a body in all.
    fn time_for(&self, bytes: usize) -> Duration {
        let millis = bytes.saturating_mul(1000) / self.limits.body_rate.max(1);
        let earned = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        self.limits.body_rate_after.saturating_add(earned).min(self.limits.body_time)
    }
}

/// What is kept of a request's head while its body arrives.
fn head_bytes(head: &Parts) -> usize {
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    fields + head.uri.path().len() + head.uri.query().map_or(0, str::len)
}

fn payload_of(endpoint: &Endpoint, bytes: Bytes) -> Result<Payload, Problem> {
    match &endpoint.body {
        BodyForm::None => Ok(endpoint.nothing.clone()),
        BodyForm::Json if bytes.is_empty() => Ok(endpoint.nothing.clone()),
        BodyForm::Json => {
            check_json(&bytes)?;
            Ok(Payload::encoded(bytes))
        }
        BodyForm::Form(form) => {
            let json = std::str::from_utf8(&bytes).ok().and_then(|encoded| form.to_json(encoded).ok());
            json.map(Payload::encoded).ok_or_else(|| Problem::invalid_input("not a valid form"))
        }
        BodyForm::Text(field) => {
            let text = std::str::from_utf8(&bytes).map_err(|_| Problem::invalid_input("not valid UTF-8"))?;
            Ok(Payload::encoded(text_to_json(field, text)))
        }
    }
}

/// What is cheap to see without decoding: a command's input is an object, of a depth that readers bear.
fn check_json(json: &[u8]) -> Result<(), Problem> {
    let first = json.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    if first != Some(&b'{') {
        return Err(Problem::invalid_input("not a JSON object"));
    }
    if nests_too_deep(json) {
        return Err(Problem::invalid_input("nests too deep"));
    }
    Ok(())
}

fn check_kind(headers: &HeaderMap, wanted: &'static str, is_empty: bool) -> Result<(), Problem> {
    let refuse = |what: String| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return refuse("a body is not compressed".to_owned());
    }
    let mut told = headers.get_all(header::CONTENT_TYPE).iter();
    match (told.next(), told.next()) {
        (None, _) if is_empty => Ok(()),
        (Some(media_type), None) if is_kind(media_type.as_bytes(), wanted) => Ok(()),
        _ => refuse(format!("the body must be {wanted} in UTF-8, and the header content-type must say so")),
    }
}

/// Whether a media type is the wanted one, in UTF-8 where it names a character set.
fn is_kind(told: &[u8], wanted: &str) -> bool {
    let mut parts = told.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_wanted = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case(wanted.as_bytes()));
    is_wanted
        && parts.all(|parameter| {
            let mut halves = parameter.splitn(2, |byte| *byte == b'=');
            let is_charset = halves.next().is_some_and(|name| name.eq_ignore_ascii_case(b"charset"));
            let value = halves.next().unwrap_or_default();
            let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
            !is_charset || value.eq_ignore_ascii_case(b"utf-8") || value.eq_ignore_ascii_case(b"us-ascii")
        })
}

fn close() -> header::HeaderValue {
    header::HeaderValue::from_static("close")
}

/// Why a body was not read.
enum End {
    TooLarge,
    TooSlow,
    /// Too many bytes are buffered already.
    Full,
    Broken,
}

/// What has come of a body; one that comes in one piece is not copied.
#[derive(Default)]
struct Gathered {
    only: Bytes,
    parts: Vec<u8>,
}

impl Gathered {
    /// Reads to the end. Dropped before, it has kept what had come.
    async fn fill(&mut self, body: &mut Incoming, bytes_max: usize) -> Result<(), End> {
        while let Some(part) = next(body).await? {
            self.add(part, bytes_max)?;
        }
        Ok(())
    }

    fn add(&mut self, part: Bytes, bytes_max: usize) -> Result<(), End> {
        if self.len() + part.len() > bytes_max {
            return Err(End::TooLarge);
        }
        if self.len() == 0 {
            self.only = part;
        } else {
            if self.parts.is_empty() {
                self.parts.extend_from_slice(&std::mem::take(&mut self.only));
            }
            self.parts.extend_from_slice(&part);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.only.len() + self.parts.len()
    }

    fn whole(self) -> Bytes {
        if self.parts.is_empty() { self.only } else { self.parts.into() }
    }
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, End> {
    loop {
        if body.is_end_stream() {
            return Ok(None);
        }
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(End::Broken),
            Some(Ok(frame)) => {
                // Trailers mean nothing here.
                if let Ok(part) = frame.into_data() {
                    return Ok(Some(part));
                }
            }
        }
    }
}

/// Reads on for a while after the answer was decided, and throws it away: a connection that is closed with unread bytes
/// is reset, and takes the answer with it.
pub(crate) fn swallow(mut body: Incoming, tasks: &TaskTracker) {
    if body.is_end_stream() {
        return;
    }
    tasks.spawn(async move {
        let swallowing = async {
            let mut left = SWALLOWED_BYTES_MAX;
            while let Ok(Some(part)) = next(&mut body).await {
                let Some(rest) = left.checked_sub(part.len()) else { return };
                left = rest;
            }
        };
        // Whoever has not sent the rest by then gets the connection's end.
        let _ = tokio::time::timeout(SWALLOWING_TIME_MAX, swallowing).await;
    });
}

/// Whether requests of this method may carry a body that is worth reading.
pub(crate) fn may_have_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_as_rfc_9110_says() {
        for good in [
            "application/json",
            "Application/JSON;charset=UTF-8",
            "application/json ; charset=\"utf-8\"",
            "application/json; v=1",
        ] {
            assert!(is_kind(good.as_bytes(), "application/json"), "{good}");
        }
        for bad in [
            "",
            "application/jsonp",
            "text/json",
            "application/json; charset=utf-16",
            "application/json; charset=",
        ] {
            assert!(!is_kind(bad.as_bytes(), "application/json"), "{bad}");
        }
    }

    #[test]
    fn only_objects_of_bearable_depth_pass() {
        assert!(check_json(b" \r\n{").is_ok());
        for bad in ["", "[]", "1", "null", "\"{\"", &"[".repeat(100_000), &r#"{"a":"#.repeat(65)] {
            assert!(check_json(bad.as_bytes()).is_err(), "{bad:.20}");
        }
    }
}
