//! Callers known by a signed bearer token (RFC 7519).

use std::fmt;

use futures_util::future::{BoxFuture, ready};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::authenticator::{AuthenticationError, Authenticator, Identity, RequestHead, SecurityScheme};

/// How far the clocks of issuer and gateway may be apart, in seconds.
pub const LEEWAY_SECONDS: u64 = 60;
/// The shortest secret that is accepted, in bytes: as long as the hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// The longest token that is read, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Knows callers by bearer tokens of one issuer, for one audience. `sub` becomes the principal.
///
/// A token must bear `exp`, `iss` (one text), `aud` and `sub`; `nbf` is heeded where it is there. Which algorithm counts is
/// decided by the key that is given here, never by the token; `none` is no algorithm. A token whose header has `crit` is
/// refused: no extension of JWS is supported.
///
/// ```no_run
/// use purista_http::jwt::Jwt;
/// # fn public_key() -> &'static [u8] { b"" }
/// # fn example() -> Result<(), purista_http::jwt::InvalidKey> {
/// let tokens = Jwt::ed25519(public_key(), "https://login.example", "accounts")?.tenant_claim("org");
/// # Ok(())
/// # }
/// ```
pub struct Jwt {
    key: DecodingKey,
    validation: Validation,
    tenant_claim: Option<&'static str>,
}

/// A key cannot be used to check tokens.
#[derive(Debug, thiserror::Error)]
#[error("the key for tokens cannot be used: {what}")]
pub struct InvalidKey {
    what: &'static str,
    #[source]
    source: Option<jsonwebtoken::errors::Error>,
}

impl Jwt {
    /// Tokens signed with a shared secret of at least [`SECRET_BYTES_MIN`] bytes (HS256, HS384, HS512).
    pub fn hmac(secret: &SecretString, issuer: &str, audience: &str) -> Result<Self, InvalidKey> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(InvalidKey { what: "a secret has at least 32 bytes", source: None });
        }
        let algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Ok(Self::of(DecodingKey::from_secret(secret), algorithms, issuer, audience))
    }

    /// Tokens signed with the private key to this RSA public key in PEM (RS256, RS384, RS512, PS256, PS384, PS512).
    pub fn rsa(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, InvalidKey> {
        let key =
            DecodingKey::from_rsa_pem(pem).map_err(|error| unusable("no RSA public key in PEM", error))?;
        let algorithms = vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ];
        Ok(Self::of(key, algorithms, issuer, audience))
    }

    /// Tokens signed with the private key to this P-256 public key in PEM (ES256).
    pub fn es256(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, InvalidKey> {
        let key =
            DecodingKey::from_ec_pem(pem).map_err(|error| unusable("no P-256 public key in PEM", error))?;
        Ok(Self::of(key, vec![Algorithm::ES256], issuer, audience))
    }

    /// Tokens signed with the private key to this P-384 public key in PEM (ES384).
    pub fn es384(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, InvalidKey> {
        let key =
            DecodingKey::from_ec_pem(pem).map_err(|error| unusable("no P-384 public key in PEM", error))?;
        Ok(Self::of(key, vec![Algorithm::ES384], issuer, audience))
    }

    /// Tokens signed with the private key to this Ed25519 public key in PEM (`EdDSA`).
    pub fn ed25519(pem: &[u8], issuer: &str, audience: &str) -> Result<Self, InvalidKey> {
        let key =
            DecodingKey::from_ed_pem(pem).map_err(|error| unusable("no Ed25519 public key in PEM", error))?;
        Ok(Self::of(key, vec![Algorithm::EdDSA], issuer, audience))
    }

    fn of(key: DecodingKey, algorithms: Vec<Algorithm>, issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = algorithms;
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_exp = true;
        validation.validate_nbf = true;
        validation.validate_aud = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self { key, validation, tenant_claim: None }
    }

    /// This claim, a text, names the tenant; a token without it is refused.
    #[must_use]
    pub fn tenant_claim(mut self, name: &'static str) -> Self {
        self.tenant_claim = Some(name);
        self
    }

    fn identify(&self, head: &RequestHead) -> Result<Identity, AuthenticationError> {
        let told = head.header("authorization").ok_or_else(|| AuthenticationError::refused("no token"))?;
        let token = bearer(told).ok_or_else(|| AuthenticationError::refused("no bearer token"))?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthenticationError::refused("the token is too long"));
        }
        let read = decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|error| AuthenticationError::refused(format!("the token does not hold: {error}")))?;
        // No extension of JWS is understood here, and `crit` names those that have to be (RFC 7515, 4.1.11).
        if read.header.crit.is_some() {
            return Err(AuthenticationError::refused("the token's header crit names what is not understood"));
        }
        // The library takes a list of issuers for one as well; it is one text (RFC 7519, 4.1.1).
        if !read.claims.get("iss").is_some_and(Value::is_string) {
            return Err(AuthenticationError::refused("the token's claim iss is no text"));
        }
        let text =
            |claim: &str| {
                read.claims.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(
                    || AuthenticationError::refused(format!("the token's claim {claim} is no text")),
                )
            };
        let identity = Identity::of(text("sub")?);
        match self.tenant_claim {
            Some(claim) => Ok(identity.in_tenant(text(claim)?)),
            None => Ok(identity),
        }
    }
}

fn unusable(what: &'static str, source: jsonwebtoken::errors::Error) -> InvalidKey {
    InvalidKey { what, source: Some(source) }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Authenticator for Jwt {
    fn authenticate<'a>(
        &'a self,
        head: &'a RequestHead,
    ) -> BoxFuture<'a, Result<Identity, AuthenticationError>> {
        Box::pin(ready(self.identify(head)))
    }

    fn scheme(&self) -> SecurityScheme {
        SecurityScheme::bearer("JWT")
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("algorithms", &self.validation.algorithms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
