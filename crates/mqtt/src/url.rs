//! The address of a broker: `mqtt://[user[:password]@]host[:port]`, or `mqtts://` for TLS.

use bytes::Bytes;
use purista_core::bridge::BridgeError;
use purista_core::broker::unescaped;

use crate::link::rejected;

const PORT_PLAIN: u16 = 1883;
const PORT_TLS: u16 = 8883;

/// What an address says. It has no `Debug`: it may hold a password.
pub(crate) struct BrokerUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
    pub(crate) credentials: Option<(String, Bytes)>,
}

impl BrokerUrl {
    /// Reads an address. Errors do not repeat it.
    pub(crate) fn parse(url: &str) -> Result<Self, BridgeError> {
        let bad = |what: &str| rejected(format!("the address of the MQTT broker {what}"));
        let (is_tls, rest) = match url.trim().split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(bad("begins with neither mqtt:// nor mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (names, place) = match rest.rsplit_once('@') {
            Some((names, place)) => (Some(names), place),
            None => (None, rest),
        };
        let credentials = names.map(|names| {
            let (user, password) = names.split_once(':').unwrap_or((names, ""));
            (String::from_utf8_lossy(&unescaped(user)).into_owned(), Bytes::from(unescaped(password)))
        });
        let (host, port) = match place.strip_prefix('[') {
            Some(inner) => {
                let (host, behind) = inner.split_once(']').ok_or_else(|| bad("has an open bracket"))?;
                (host, behind.strip_prefix(':').unwrap_or(behind))
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let port = match port {
            "" if is_tls => PORT_TLS,
            "" => PORT_PLAIN,
            port => port.parse().map_err(|_| bad("has no number for a port"))?,
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(bad("has no host"));
        }
        Ok(Self { host: host.to_owned(), port, is_tls, credentials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_who_we_are_and_where_the_broker_is() {
        for (url, host, port, is_tls, credentials) in [
            ("mqtt://127.0.0.1:4242", "127.0.0.1", 4242, false, None),
            ("mqtt://broker", "broker", 1883, false, None),
            ("mqtts://broker/", "broker", 8883, true, None),
            ("mqtts://[::1]", "::1", 8883, true, None),
            ("mqtt://[::1]:7", "::1", 7, false, None),
            ("mqtt://ada:a%40b:%2F%C3%A4@host:1", "host", 1, false, Some(("ada", "a@b:/ä"))),
            ("mqtt://ada@host", "host", 1883, false, Some(("ada", ""))),
            ("mqtt://a:b@c@host", "host", 1883, false, Some(("a", "b@c"))),
        ] {
            let read = BrokerUrl::parse(url).unwrap();
            assert_eq!((read.host.as_str(), read.port, read.is_tls), (host, port, is_tls), "{url}");
            let named = read.credentials.as_ref();
            let named = named.map(|(user, password)| (user.as_str(), std::str::from_utf8(password).unwrap()));
            assert_eq!(named, credentials, "{url}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_is_not_repeated() {
        for url in [
            "",
            "hunter2",
            "nats://a:hunter2@b",
            "mqtt://",
            "mqtt://a:hunter2@",
            "mqtt://a:hunter2@[::1",
            "mqtt://a:hunter2@host:port",
            "mqtt://a:hunter2@host:70000",
            "mqtt://a:hunter2@host/path",
        ] {
            let Err(error) = BrokerUrl::parse(url) else { panic!("{url} is no address") };
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
    }
}
