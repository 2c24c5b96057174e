//! Which path and method lead where: a tree of path segments, fixed when the gateway opens.
//!
//! A literal segment goes before a parameter, at every place of the path.

use std::collections::BTreeMap;

use hyper::Method;

use crate::served::Served;

/// Everything that is served, by path and method.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    place: Place,
}

/// One path, with what is served there.
#[derive(Debug, Default)]
pub(crate) struct Place {
    served: Vec<(Method, Served)>,
}

/// A route that exists already under this name.
pub(crate) struct Taken(pub(crate) String);

impl Routes {
    /// Adds what is served at `path`; a segment in braces stands for any value.
    pub(crate) fn add(&mut self, method: Method, path: &str, served: Served) -> Result<(), Taken> {
        let mut node = &mut self.root;
        for segment in segments(path) {
            node = if segment.starts_with('{') {
                node.any.get_or_insert_default()
            } else {
                node.literals.entry(segment.into()).or_default()
            };
        }
        if let Some((_, first)) = node.place.served.iter().find(|(taken, _)| *taken == method) {
            return Err(Taken(first.name()));
        }
        node.place.served.push((method, served));
        Ok(())
    }

    /// The place at `path`, and the values of its parameters as they came.
    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<(&Place, Vec<&'p str>)> {
        let mut values = Vec::new();
        let rest = path.strip_prefix('/')?;
        let place = self.root.find(Some(rest), &mut values)?;
        Some((place, values))
    }
}

impl Node {
    /// Each node is looked at once at most, so a path costs no more than there are routes.
    fn find<'p>(&self, rest: Option<&'p str>, values: &mut Vec<&'p str>) -> Option<&Place> {
        let Some(rest) = rest else {
            return (!self.place.served.is_empty()).then_some(&self.place);
        };
        let (segment, rest) = rest.split_once('/').map_or((rest, None), |(first, rest)| (first, Some(rest)));
        if let Some(place) = self.literals.get(segment).and_then(|node| node.find(rest, values)) {
            return Some(place);
        }
        let any = self.any.as_ref().filter(|_| !segment.is_empty())?;
        values.push(segment);
        let found = any.find(rest, values);
        if found.is_none() {
            values.pop();
        }
        found
    }
}

impl Place {
    /// What answers this method; a `HEAD` is a `GET` without its body.
    pub(crate) fn served(&self, method: &Method) -> Option<&Served> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.served.iter().find(|(served, _)| served == method).map(|(_, served)| served)
    }

    /// The methods, as the header `allow` lists them.
    pub(crate) fn allow(&self) -> String {
        let mut methods: Vec<&str> = Vec::with_capacity(self.served.len() + 1);
        for (method, _) in &self.served {
            methods.push(method.as_str());
            if method == Method::GET {
                methods.push("HEAD");
            }
        }
        methods.join(", ")
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(paths: &[(&Method, &str)]) -> Routes {
        let mut routes = Routes::default();
        for (method, path) in paths {
            assert!(routes.add((*method).clone(), path, Served::Alive).is_ok(), "{method} {path}");
        }
        routes
    }

    #[test]
    fn a_literal_goes_before_a_parameter_and_gives_way_when_the_rest_does_not_fit() {
        let routes = routes(&[
            (&Method::GET, "/users/me"),
            (&Method::GET, "/users/{id}"),
            (&Method::GET, "/users/{id}/posts/{post}"),
            (&Method::GET, "/"),
        ]);
        let values = |path| routes.find(path).map(|(_, values)| values);
        assert_eq!(values("/users/me"), Some(vec![]));
        assert_eq!(values("/users/7"), Some(vec!["7"]));
        assert_eq!(values("/users/me/posts/1"), Some(vec!["me", "1"]));
        assert_eq!(values("/"), Some(vec![]));
        for nowhere in ["/users", "/users/", "/users/7/", "/users/7/posts", "users/7", "", "*", "//"] {
            assert_eq!(values(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn names_of_parameters_do_not_tell_routes_apart_but_methods_do() {
        let mut routes = routes(&[(&Method::GET, "/users/{a}"), (&Method::POST, "/users/{b}")]);
        assert!(routes.add(Method::GET, "/users/{b}", Served::Alive).is_err());
        let (place, _) = routes.find("/users/7").unwrap();
        assert_eq!(place.allow(), "GET, HEAD, POST");
        assert!(place.served(&Method::HEAD).is_some() && place.served(&Method::PUT).is_none());
    }
}
