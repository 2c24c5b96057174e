//! Who may use whom: every arrow between crates, and to every guest, with the reason it is there.
//!
//! A new arrow is the rarest change: a commit of its own, with its reason here.

/// The floors of the house. A crate uses only crates of lower floors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Floor {
    /// The contracts that everything else is written against.
    Ground,
    /// What is built on the contracts alone.
    First,
    /// Services, and the adapters to brokers, stores and the web.
    Main,
    /// Programs and suites that put the house to use; nothing depends on them but tests.
    Upper,
    /// Tools of the workspace, apart from the house.
    Apart,
}

/// A permitted use of another crate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrow {
    /// The crate's name; a `*` at its end stands for a family of crates.
    pub(crate) to: &'static str,
    pub(crate) because: &'static str,
}

/// Which crates of others a room may use beyond those that every room may.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Guests {
    Only(&'static [Arrow]),
    /// Nothing depends on the room, so its guests stay in it: an application chooses its own, and what is
    /// measured is compared with the raw clients.
    Any,
}

/// What one crate may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) name: &'static str,
    pub(crate) floor: Floor,
    /// An adapter speaks for one outside system: its tests, too, use neither another adapter nor the host.
    pub(crate) is_adapter: bool,
    pub(crate) own: &'static [Arrow],
    pub(crate) guests: Guests,
}

/// Guests of every room.
pub(crate) const EVERYWHERE: [&str; 9] =
    ["serde", "serde_json", "bytes", "thiserror", "tokio", "tokio-util", "futures-util", "tracing", "uuid"];

const fn to(to: &'static str, because: &'static str) -> Arrow {
    Arrow { to, because }
}

const CORE: Arrow = to("purista-core", "messages and contracts are its language");
const JIFF: Arrow = to("jiff", "times in messages and records are jiff's, as in core");

pub(crate) const ROOMS: [Room; 20] = [
    Room {
        name: "purista-core",
        floor: Floor::Ground,
        is_adapter: false,
        own: &[],
        guests: Guests::Only(&[
            to("schemars", "the schema of a contract comes from its Rust type"),
            to("garde", "the same attributes check a payload and describe it"),
            to("jsonschema", "contracts known only by their schema are checked by it"),
            to("regex", "the patterns in garde's attributes"),
            to("jiff", "the time of day, with its zone"),
            to("arc-swap", "routes are read on every message and replaced rarely"),
            to("rustc-hash", "an address is looked up on every command, and no stranger chooses it"),
            to("secrecy", "a secret has no Debug and is wiped"),
            to("rustix", "the kernel's coarse clock, which every message's time comes from"),
        ]),
    },
    Room {
        name: "purista-events",
        floor: Floor::First,
        is_adapter: false,
        own: &[CORE],
        guests: Guests::Only(&[JIFF]),
    },
    Room {
        name: "purista",
        floor: Floor::Main,
        is_adapter: false,
        own: &[CORE, to("purista-events", "a unit of work commits events, state and replies together")],
        guests: Guests::Only(&[
            JIFF,
            to("secrecy", "a secret that a handler reads has no Debug and is wiped"),
            to("config", "a service's configuration from files and the environment"),
        ]),
    },
    Room {
        name: "purista-telemetry",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE],
        guests: Guests::Only(&[
            to("tracing-subscriber", "spans and logs go to a place"),
            to("tracing-opentelemetry", "spans become OpenTelemetry's"),
            to("opentelemetry*", "the protocol that collectors speak"),
            to("hyper", "HTTP to a collector, with no feature that a program's own client could feel"),
            to("hyper-util", "the proxies that the environment names"),
            to("http-body-util", "a response of a collector is read whole, and bounded"),
            to("tokio-rustls", "TLS to a collector, with a provider of its own"),
            to("rustls-native-certs", "which collectors the machine trusts"),
            to("metrics*", "counters and histograms for Prometheus"),
        ]),
    },
    Room {
        name: "purista-http",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE],
        guests: Guests::Only(&[
            to("hyper", "the protocol, with time-outs of our own"),
            to("hyper-util", "the accept loop with a timer"),
            to("jsonwebtoken", "bearer tokens are checked at the door"),
            to("percent-encoding", "paths, queries and forms are decoded by the library that URLs have"),
            to("secrecy", "keys and secrets of authenticators have no Debug and are wiped"),
            to("subtle", "keys are compared in constant time"),
        ]),
    },
    Room {
        name: "purista-nats",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE],
        guests: Guests::Only(&[to("async-nats", "the client of the one system that this crate speaks to")]),
    },
    Room {
        name: "purista-mqtt",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE],
        guests: Guests::Only(&[
            to("rumqttc-v5-next", "the client of the one system that this crate speaks to"),
            to("rustls-native-certs", "whom the machine trusts"),
        ]),
    },
    Room {
        name: "purista-amqp",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE],
        guests: Guests::Only(&[
            to("lapin", "the client of the one system that this crate speaks to"),
            to("tokio-rustls", "reads the files of certificates and keys that the client's TLS is given"),
        ]),
    },
    Room {
        name: "purista-sqlite",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE, to("purista-events", "it implements the event store's contract")],
        guests: Guests::Only(&[
            JIFF,
            to("crc32fast", "the checksum of every event that is read, by the processor's own instructions"),
            to("rusqlite", "the client of the one system that this crate speaks to"),
        ]),
    },
    Room {
        name: "purista-postgres",
        floor: Floor::Main,
        is_adapter: true,
        own: &[CORE, to("purista-events", "it implements the event store's contract")],
        guests: Guests::Only(&[
            JIFF,
            to("tokio-postgres", "the client of the one system that this crate speaks to"),
            to("deadpool-postgres", "its pool: connections for readers and projections"),
            to("tokio-rustls", "TLS without a library of the system's"),
            to("rustls-native-certs", "whom the machine trusts"),
        ]),
    },
    Room {
        name: "purista-conformance",
        floor: Floor::Upper,
        is_adapter: false,
        own: &[CORE, to("purista-events", "the duties of stores are tested here as those of bridges are")],
        guests: Guests::Only(&[
            to("proptest", "some duties hold for every input"),
            to("garde", "the event of the projections' duties is a contract, and those are derived"),
            to("schemars", "as garde"),
        ]),
    },
    Room {
        name: "purista-benches",
        floor: Floor::Upper,
        is_adapter: false,
        own: &HOUSE,
        guests: Guests::Any,
    },
    // The one place where whole hosts are seen from outside: adapters' tests may not use the host, nor another adapter.
    Room { name: "purista-wire", floor: Floor::Upper, is_adapter: false, own: &HOUSE, guests: Guests::Any },
    Room {
        name: "purista-cli",
        floor: Floor::Upper,
        is_adapter: false,
        own: &[
            CORE,
            to("purista-events", "it shows and steers what the contract of a log keeps"),
            to("purista-sqlite", "the file that it opens"),
            to("purista-postgres", "the database that it opens, and copies a file into"),
        ],
        guests: Guests::Only(&[
            JIFF,
            to("anyhow", "the tool's errors are read by people only"),
            to("clap", "the command line"),
        ]),
    },
    Room { name: "over-nats", floor: Floor::Upper, is_adapter: false, own: &HOUSE, guests: Guests::Any },
    Room { name: "over-postgres", floor: Floor::Upper, is_adapter: false, own: &HOUSE, guests: Guests::Any },
    Room { name: "profile", floor: Floor::Upper, is_adapter: false, own: &HOUSE, guests: Guests::Any },
    Room { name: "sign-up", floor: Floor::Upper, is_adapter: false, own: &HOUSE, guests: Guests::Any },
    // Nothing of it is in anything that runs outside of tests and measurements.
    Room {
        name: "purista-servers",
        floor: Floor::Ground,
        is_adapter: false,
        own: &[],
        guests: Guests::Only(&[]),
    },
    Room {
        name: "xtask",
        floor: Floor::Apart,
        is_adapter: false,
        own: &[],
        guests: Guests::Only(&[
            to("anyhow", "the tool's errors are read by people only"),
            to("clap", "the command line"),
        ]),
    },
];

/// What an application may put together.
const HOUSE: [Arrow; 11] = [
    CORE,
    to("purista", "services and their host"),
    to("purista-events", "projections and stores in memory"),
    to("purista-telemetry", "an application decides where its spans go"),
    to("purista-http", "an application decides how it is reached"),
    to("purista-nats", "an application decides on its bridge"),
    to("purista-amqp", "an application decides on its bridge"),
    to("purista-mqtt", "an application decides on its bridge"),
    to("purista-sqlite", "an application decides on its store"),
    to("purista-postgres", "an application decides on its store"),
    to("purista-servers", "what is measured is started first"),
];
