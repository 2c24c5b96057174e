//! The broker's addresses.

use std::net::IpAddr;

use lapin::uri::{AMQPScheme, AMQPUri};
use purista_core::bridge::BridgeError;
use purista_core::broker::is_this_machine;

use crate::error::rejected;

/// How often both sides show that they live, in seconds; two missing signs are a lost connection.
const HEARTBEAT_S: u16 = 15;

/// The addresses of a list divided by commas. An error repeats none of them: they may hold a password.
pub(crate) fn addresses(urls: &str) -> Result<Vec<AMQPUri>, BridgeError> {
    urls.split(',').map(|url| address(url.trim())).collect()
}

fn address(url: &str) -> Result<AMQPUri, BridgeError> {
    let unreadable = || rejected("the address of the AMQP broker cannot be read");
    let mut uri: AMQPUri = url.parse().map_err(|_| unreadable())?;
    let (_, behind) = url.split_once("://").ok_or_else(unreadable)?;
    let authority = behind.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(bracketed) = host.strip_prefix('[') {
        // The parser takes such a host for none, and none for this machine.
        let (number, _) = bracketed.split_once(']').ok_or_else(unreadable)?;
        number.parse::<IpAddr>().map_err(|_| unreadable())?;
        number.clone_into(&mut uri.authority.host);
    }
    if uri.authority.host.is_empty() {
        return Err(unreadable());
    }
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_S));
    Ok(uri)
}

/// Whether what is said to the broker may be overheard: no TLS, and another machine.
pub(crate) fn is_exposed(uri: &AMQPUri) -> bool {
    uri.scheme == AMQPScheme::AMQP && !is_this_machine(&uri.authority.host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> (String, u16, String) {
        let uri = address(url).unwrap();
        (uri.authority.host, uri.authority.port, uri.vhost)
    }

    #[test]
    fn addresses_are_read_also_those_of_ip_6() {
        let is = |host: &str, port, vhost: &str| (host.to_owned(), port, vhost.to_owned());
        assert_eq!(host("amqp://127.0.0.1"), is("127.0.0.1", 5672, "/"));
        assert_eq!(host("amqps://ada:p%40ss@broker:1/%2fhouse"), is("broker", 1, "/house"));
        assert_eq!(host("amqp://ada:x@[2001:db8::1]:7/a"), is("2001:db8::1", 7, "a"));
        assert_eq!(addresses("amqp://one, amqp://two").unwrap().len(), 2);
        assert_eq!(address("amqp://one").unwrap().query.heartbeat, Some(HEARTBEAT_S));
        assert_eq!(address("amqp://one?heartbeat=3").unwrap().query.heartbeat, Some(3));
    }

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        for url in [
            "",
            "ada:hunter2",
            "http://ada:hunter2@one",
            "amqp://ada:hunter2@[::1",
            "amqp:hunter2",
            "amqp://ada:hunter2@[no]",
        ] {
            let error = address(url).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(!format!("{error} {error:?} {source}").contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (url, exposed) in [
            ("amqp://localhost", false),
            ("amqp://127.8.8.8", false),
            ("amqp://[::1]", false),
            ("amqp://[::ffff:127.0.0.1]", false),
            ("amqp://10.0.0.1", true),
            ("amqp://localhost.example.com", true),
            ("amqp://[2001:db8::1]", true),
            ("amqps://10.0.0.1", false),
        ] {
            assert_eq!(is_exposed(&address(url).unwrap()), exposed, "{url}");
        }
    }
}
