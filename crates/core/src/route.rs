//! Where HTTP finds a command: a part of its contract, so that every gateway and every document agree.

/// The five methods that a command can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Reads; parameters only, no body.
    Get,
    /// Does something; has a body.
    Post,
    /// Replaces; has a body.
    Put,
    /// Changes; has a body.
    Patch,
    /// Removes; parameters only, no body.
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a request of this method has a body.
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// `application/json`: an object with the fields of the command that are no parameters.
    Json,
    /// `application/x-www-form-urlencoded`: names and values are fields.
    Form,
    /// `text/plain`: the whole body is this one field.
    Text {
        /// The field's JSON name.
        field: &'static str,
    },
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Whoever the gateway's authenticator lets in. A gateway without one refuses to start.
    Authenticated,
}

/// Method and path of a command, below `/api/v{version of the service}/`.
///
/// A route needs an authenticator unless it says [`Route::public`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    body: Body,
}

impl Route {
    const fn new(method: Method, path: &'static str) -> Self {
        Self { method, path, access: Access::Authenticated, body: Body::Json }
    }

    /// `GET`; `path` as `users/{userId}`, without a slash before it. Names in braces are among the command's
    /// [`PARAMETERS`](crate::contract::Command::PARAMETERS); the other parameters are taken from the query.
    pub const fn get(path: &'static str) -> Self {
        Self::new(Method::Get, path)
    }

    /// `POST`; see [`Route::get`] for the path.
    pub const fn post(path: &'static str) -> Self {
        Self::new(Method::Post, path)
    }

    /// `PUT`; see [`Route::get`] for the path.
    pub const fn put(path: &'static str) -> Self {
        Self::new(Method::Put, path)
    }

    /// `PATCH`; see [`Route::get`] for the path.
    pub const fn patch(path: &'static str) -> Self {
        Self::new(Method::Patch, path)
    }

    /// `DELETE`; see [`Route::get`] for the path.
    pub const fn delete(path: &'static str) -> Self {
        Self::new(Method::Delete, path)
    }

    /// Open to anybody.
    #[must_use]
    pub const fn public(mut self) -> Self {
        self.access = Access::Public;
        self
    }

    /// The body is a form.
    #[must_use]
    pub const fn form(mut self) -> Self {
        self.body = Body::Form;
        self
    }

    /// The body is plain text, and becomes this field.
    #[must_use]
    pub const fn text(mut self, field: &'static str) -> Self {
        self.body = Body::Text { field };
        self
    }

    /// The method.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The path as it was given.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Who may use it.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// What its body is.
    pub const fn body(&self) -> Body {
        self.body
    }

    /// The names in braces, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}
