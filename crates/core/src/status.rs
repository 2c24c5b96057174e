//! Status codes of replies: HTTP's numbers, with PURISTA's names as their default text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of a command, as a number that HTTP knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Status(u16);

macro_rules! statuses {
    ($($name:ident = $code:literal, $text:literal;)+) => {
        impl Status {
            $(#[doc = concat!("`", stringify!($code), "` ", $text, ".")] pub const $name: Self = Self($code);)+

            /// The text that a caller sees when the handler gave none.
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($code => $text,)+
                    _ => "Unknown Error",
                }
            }
        }
    };
}

statuses! {
    OK = 200, "OK";
    NO_CONTENT = 204, "No Content";
    BAD_REQUEST = 400, "Bad Request";
    UNAUTHORIZED = 401, "Unauthorized";
    PAYMENT_REQUIRED = 402, "Payment Required";
    FORBIDDEN = 403, "Forbidden";
    NOT_FOUND = 404, "Not Found";
    METHOD_NOT_ALLOWED = 405, "Method Not Allowed";
    NOT_ACCEPTABLE = 406, "Not Acceptable";
    REQUEST_TIMEOUT = 408, "Request Timeout";
    CONFLICT = 409, "Conflict";
    GONE = 410, "Gone";
    PRECONDITION_FAILED = 412, "Precondition Failed";
    PAYLOAD_TOO_LARGE = 413, "Payload Too Large";
    URI_TOO_LONG = 414, "URI Too Long";
    UNSUPPORTED_MEDIA_TYPE = 415, "Unsupported Media Type";
    IM_A_TEAPOT = 418, "Im A Teapot";
    UNPROCESSABLE_ENTITY = 422, "Unprocessable Entity";
    LOCKED = 423, "Locked";
    PRECONDITION_REQUIRED = 428, "Precondition Required";
    TOO_MANY_REQUESTS = 429, "Too Many Requests";
    REQUEST_HEADER_FIELDS_TOO_LARGE = 431, "Request Header Fields Too Large";
    UNAVAILABLE_FOR_LEGAL_REASONS = 451, "Unavailable For Legal Reasons";
    INTERNAL_SERVER_ERROR = 500, "Internal Server Error";
    NOT_IMPLEMENTED = 501, "Not Implemented";
    BAD_GATEWAY = 502, "Bad Gateway";
    SERVICE_UNAVAILABLE = 503, "Service Unavailable";
    GATEWAY_TIMEOUT = 504, "Gateway Timeout";
    INSUFFICIENT_STORAGE = 507, "Insufficient Storage";
    LOOP_DETECTED = 508, "Loop Detected";
}

impl Status {
    /// A status by its number. A handled error is 400 to 599; any other number becomes 500, since an error that looks
    /// like a success would be taken for one.
    pub const fn of_error(code: u16) -> Self {
        if code >= 400 && code <= 599 { Self(code) } else { Self::INTERNAL_SERVER_ERROR }
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.text())
    }
}
