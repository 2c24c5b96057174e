//! Tokens that hold, and every way in which one does not.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;
use crate::authenticator::tests::head;

const SECRET: &str = "CANARY-0123456789-0123456789-0123456789";
const ISSUER: &str = "https://login.example";
const AUDIENCE: &str = "accounts";

/// Seconds since 1970, now.
fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn claims() -> Value {
    json!({"sub": "user-1", "org": "acme", "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 600})
}

fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn jwt() -> Jwt {
    Jwt::hmac(&SECRET.into(), ISSUER, AUDIENCE).unwrap().tenant_claim("org")
}

fn identify(jwt: &Jwt, token: &str) -> Result<Identity, AuthenticationError> {
    jwt.identify(&head(&[("authorization", &format!("Bearer {token}"))]))
}

#[track_caller]
fn refuses(token: &str) {
    let refused = identify(&jwt(), token);
    assert!(matches!(refused, Err(AuthenticationError::Refused(_))), "{refused:?}");
}

fn changed(claim: &str, value: Value) -> String {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
        value => claims[claim] = value,
    }
    signed(Algorithm::HS256, SECRET, &claims)
}

#[test]
fn a_token_names_principal_and_tenant() {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = signed(algorithm, SECRET, &claims());
        assert_eq!(identify(&jwt(), &token), Ok(Identity::of("user-1").in_tenant("acme")));
    }
    let without_tenant = Jwt::hmac(&SECRET.into(), ISSUER, AUDIENCE).unwrap();
    assert_eq!(identify(&without_tenant, &changed("org", Value::Null)), Ok(Identity::of("user-1")));
}

#[test]
fn a_token_without_a_signature_that_holds_is_refused() {
    use std::fmt::Write as _;
    refuses(&signed(Algorithm::HS256, "another-secret-0123456789-0123456789", &claims()));
    let token = signed(Algorithm::HS256, SECRET, &claims());
    let (signed_part, signature) = token.rsplit_once('.').unwrap();
    let (_, body) = signed_part.split_once('.').unwrap();
    refuses(signed_part);
    refuses(&format!("{signed_part}."));
    // {"alg":"none"}, {"alg":"None","typ":"JWT"}
    for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
        refuses(&format!("{none}.{body}."));
        refuses(&format!("{none}.{body}.{signature}"));
    }
    let mut other = String::new();
    let _ = write!(other, "{token}x");
    refuses(&other);
    for nonsense in ["", "a.b.c", "..", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        refuses(nonsense);
    }
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    for (claim, value) in [
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
        ("iss", json!([ISSUER])),
        ("iss", json!([ISSUER, ISSUER])),
        ("aud", json!("other")),
        ("aud", Value::Null),
        ("exp", Value::Null),
        ("exp", json!("soon")),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("org", Value::Null),
        ("org", json!({"a": 1})),
    ] {
        refuses(&changed(claim, value));
    }
}

#[test]
fn a_token_with_a_critical_header_is_refused() {
    for critical in [vec!["b64"], vec!["https://example.com/unknown"], vec![]] {
        let mut header = Header::new(Algorithm::HS256);
        header.crit = Some(critical.into_iter().map(ToOwned::to_owned).collect());
        refuses(&encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap());
    }
}

#[test]
fn clocks_may_be_a_minute_apart_and_no_more() {
    let holds = |claim: &str, seconds: u64| identify(&jwt(), &changed(claim, json!(seconds))).is_ok();
    assert!(holds("exp", now() - LEEWAY_SECONDS + 10) && !holds("exp", now() - LEEWAY_SECONDS - 10));
    assert!(holds("nbf", now() + LEEWAY_SECONDS - 10) && !holds("nbf", now() + LEEWAY_SECONDS + 10));
}

#[test]
fn the_key_decides_on_the_algorithm_and_not_the_token() {
    // The classic confusion: a token signed with the public key's text as an HMAC secret.
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let jwt = Jwt::ed25519(pem.as_bytes(), ISSUER, AUDIENCE).unwrap();
    let confused = signed(Algorithm::HS256, pem, &claims());
    assert!(identify(&jwt, &confused).is_err());
}

#[test]
fn a_token_of_a_private_key_is_checked_with_its_public_key() {
    // The key pair of RFC 8410, section 10.
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let key = EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
    let token = encode(&Header::new(Algorithm::EdDSA), &claims(), &key).unwrap();
    let jwt = Jwt::ed25519(public.as_bytes(), ISSUER, AUDIENCE).unwrap();
    assert_eq!(identify(&jwt, &token), Ok(Identity::of("user-1")));
}

#[test]
fn only_one_bearer_header_counts() {
    let token = signed(Algorithm::HS256, SECRET, &claims());
    let bearer = format!("Bearer {token}");
    assert!(jwt().identify(&head(&[("authorization", &format!("bearer {token}"))])).is_ok());
    assert!(jwt().identify(&head(&[])).is_err());
    assert!(jwt().identify(&head(&[("authorization", &token)])).is_err());
    assert!(jwt().identify(&head(&[("authorization", &format!("Basic {token}"))])).is_err());
    assert!(jwt().identify(&head(&[("authorization", &bearer), ("authorization", &bearer)])).is_err());
}

#[test]
fn a_key_that_is_weak_or_none_is_refused_and_no_key_is_printed() {
    assert!(Jwt::hmac(&"short".into(), ISSUER, AUDIENCE).is_err());
    for made in [
        Jwt::rsa(b"x", ISSUER, AUDIENCE),
        Jwt::es256(b"x", ISSUER, AUDIENCE),
        Jwt::es384(b"x", ISSUER, AUDIENCE),
        Jwt::ed25519(b"x", ISSUER, AUDIENCE),
    ] {
        assert!(made.unwrap_err().to_string().starts_with("the key for tokens cannot be used"));
    }
    assert!(!format!("{:?}", jwt()).contains("CANARY"));
}
