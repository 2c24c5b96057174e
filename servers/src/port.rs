//! Ports for servers that cannot choose one themselves.

use std::net::TcpListener;

/// Ports that were free a moment ago, all of them different.
pub(crate) fn free<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("a listener has an address").port())
}
