//! Reads the body of a request: of the right kind, not too much of it, and not for too long.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode};
use purista_core::payload::Payload;
use purista_core::schema::nests_too_deep;
use tokio_util::task::TaskTracker;

use crate::endpoint::{BodyForm, Endpoint};
use crate::form::text_to_json;
use crate::limits::Limits;
use crate::response::Problem;

/// How much of a body that nobody wants is swallowed, and for how long: a caller that still writes reads no answer.
const SWALLOWED_BYTES_MAX: usize = 1024 * 1024;
const SWALLOWING_TIME_MAX: Duration = Duration::from_secs(2);

/// The body as the payload of a command. Its JSON is not decoded here: the command's dispatch does so once, and names
/// every field at fault.
pub(crate) async fn payload(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    body: Incoming,
    limits: &Limits,
    tasks: &TaskTracker,
) -> Result<Payload, Problem> {
    let wanted = match &endpoint.body {
        BodyForm::None => {
            // What a GET carries has no meaning; it is not read.
            return Ok(endpoint.nothing.clone());
        }
        BodyForm::Json => "application/json",
        BodyForm::Form(_) => "application/x-www-form-urlencoded",
        BodyForm::Text(_) => "text/plain",
    };
    let is_empty = body.is_end_stream();
    if let Err(problem) = check_kind(headers, wanted, is_empty) {
        swallow(body, tasks);
        return Err(problem);
    }
    if is_empty && !matches!(endpoint.body, BodyForm::Text(_)) {
        return Ok(endpoint.nothing.clone());
    }
    let bytes = read(body, limits, tasks).await?;
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

async fn read(mut body: Incoming, limits: &Limits, tasks: &TaskTracker) -> Result<Bytes, Problem> {
    let told = body.size_hint().lower();
    let fits = usize::try_from(told).is_ok_and(|told| told <= limits.body_bytes);
    let read = if fits {
        within(limits.body_time, collected(&mut body, limits.body_bytes)).await
    } else {
        Err(End::TooLarge)
    };
    let problem = match read {
        Ok(bytes) => return Ok(bytes),
        Err(End::TooLarge) => {
            let what = format!("a body has at most {} bytes", limits.body_bytes);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what)
        }
        Err(End::TooSlow) => {
            let what = format!("a body must come within {} ms", limits.body_time.as_millis());
            Problem::new(StatusCode::REQUEST_TIMEOUT, what).with_header(header::CONNECTION, close())
        }
        Err(End::Broken) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "the body could not be read to its end"));
        }
    };
    swallow(body, tasks);
    Err(problem)
}

fn close() -> header::HeaderValue {
    header::HeaderValue::from_static("close")
}

/// Why a body was not read.
enum End {
    TooLarge,
    TooSlow,
    Broken,
}

/// Waits for `reading` at most `time`. The first look never finds a body, because hyper reads one only once it is asked
/// for; the second one nearly always does, and only after it a timer is worth its cost.
async fn within(time: Duration, reading: impl Future<Output = Result<Bytes, End>>) -> Result<Bytes, End> {
    let mut reading = pin!(reading);
    let mut looks = 0;
    let early = poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending if looks == 0 => {
            looks = 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Pending => Poll::Ready(None),
    });
    match early.await {
        Some(read) => read,
        None => tokio::time::timeout(time, reading).await.unwrap_or(Err(End::TooSlow)),
    }
}

/// The whole body, at most `bytes_max` of it; one that comes in one piece is not copied.
async fn collected(body: &mut Incoming, bytes_max: usize) -> Result<Bytes, End> {
    let mut whole = Bytes::new();
    let mut parts: Vec<u8> = Vec::new();
    while let Some(part) = next(body).await? {
        if whole.len().max(parts.len()) + part.len() > bytes_max {
            return Err(End::TooLarge);
        }
        if whole.is_empty() && parts.is_empty() {
            whole = part;
            continue;
        }
        if parts.is_empty() {
            parts.reserve(whole.len() + part.len());
            parts.extend_from_slice(&whole);
        }
        parts.extend_from_slice(&part);
    }
    Ok(if parts.is_empty() { whole } else { parts.into() })
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
