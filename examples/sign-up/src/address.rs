//! E-mail addresses: the rule that a sign-up must pass, and the form in which two spellings of one address are equal.

use url::Host;

/// Last labels of a domain that never lead to a mail server (RFC 6761). `.test` and `.example` are left out on purpose: a
/// network of one's own may have a mail server for them.
const NEVER_DELIVERED: [&str; 2] = ["invalid", "localhost"];

/// The longest domain name of the DNS.
const DOMAIN_MAX: usize = 253;

/// The address as mail servers take it, in lower case: of `Ada@Bücher.example` it is `ada@xn--bcher-kva.example`. An address
/// without a domain name is only put in lower case.
pub(crate) fn canonical(address: &str) -> String {
    deliverable(address).as_deref().unwrap_or(address).to_lowercase()
}

/// The address with its domain in ASCII, and its local part as it was written; `None` without a domain name.
pub(crate) fn deliverable(address: &str) -> Option<String> {
    let (name, domain) = address.rsplit_once('@')?;
    Some(format!("{name}@{}", to_ascii(domain)?))
}

/// The domain in the form of the DNS (IDNA, A-labels); an IP address is no domain name.
fn to_ascii(domain: &str) -> Option<String> {
    match Host::parse(domain).ok()? {
        Host::Domain(domain) => Some(domain),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

/// A rule of one's own: an address to which no mail can ever be delivered is rejected at the sign-up, where its owner can
/// correct it. Otherwise its mail would be retried for a day.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "garde calls its rules so, with a context that may be large"
)]
pub(crate) fn can_be_delivered(address: &str, (): &()) -> garde::Result {
    let Some((name, domain)) = address.rsplit_once('@') else { return Ok(()) };
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Err(garde::Error::new("not a valid email: a dot stands between two other characters"));
    }
    let domain = to_ascii(domain).filter(|domain| domain.len() <= DOMAIN_MAX);
    let Some((rest, last)) = domain.as_deref().and_then(|domain| domain.rsplit_once('.')) else {
        return Err(garde::Error::new("not a valid email: a domain such as example.com follows the @"));
    };
    if rest.is_empty() || last.is_empty() || NEVER_DELIVERED.contains(&last) {
        return Err(garde::Error::new("not a valid email: no mail is delivered to this domain"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_are_equal() {
        let expect = "ada@xn--bcher-kva.example";
        for address in ["ada@xn--bcher-kva.example", "Ada@Bücher.example", "ada@BU\u{308}CHER.example"] {
            assert_eq!(canonical(address), expect, "{address}");
        }
        assert_eq!(canonical("ada@example.com"), "ada@example.com");
        assert_eq!(deliverable("Ada@Bücher.example"), Some("Ada@xn--bcher-kva.example".to_owned()));
    }

    #[test]
    fn an_address_that_can_never_work_is_rejected() {
        for address in [
            "a@b",
            "a@localhost",
            "a@app.localhost",
            "a@x.invalid",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "a@1",
            "a@[::1]",
        ] {
            assert!(can_be_delivered(address, &()).is_err(), "{address}");
        }
        for address in ["a@b.example", "a@mail.test", "a@bücher.example", "a@例え.テスト"] {
            assert!(can_be_delivered(address, &()).is_ok(), "{address}");
        }
    }
}
