//! The broker between the parts: which one, where, and what it promises.

use std::error::Error as _;
use std::fmt;

use anyhow::bail;
use purista::host::HostBuilder;
use purista_amqp::bridge::AmqpBridge;
use purista_core::bridge::BridgeError;
use purista_mqtt::bridge::MqttBridge;
use purista_nats::bridge::NatsBridge;
use purista_nats::jetstream::JetStream;

/// A broker by its URL. It has no `Debug`, and shows itself without what follows from a password.
pub(crate) struct Broker {
    kind: Kind,
    url: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Nats,
    RabbitMq,
    Mqtt,
}

/// How this process appears at the broker.
pub(crate) struct Appearance {
    /// Its name among the others; a new one at each start when absent.
    pub(crate) name: Option<String>,
    /// Whether messages have to wait for it under that name.
    pub(crate) is_awaited: bool,
    /// Whether a broker on another machine may be spoken to without TLS.
    pub(crate) unencrypted: bool,
}

impl Broker {
    /// Reads a URL. It may hold a password, so no error repeats more of it than its scheme.
    pub(crate) fn parse(url: &str) -> anyhow::Result<Self> {
        const FORMS: &str = "write nats://host:port, amqp://host:port or mqtt://host:port (with TLS tls://, amqps:// or mqtts://)";
        let kind = match url.split_once("://") {
            Some(("nats" | "tls", _)) => Kind::Nats,
            Some(("amqp" | "amqps", _)) => Kind::RabbitMq,
            Some(("mqtt" | "mqtts", _)) => Kind::Mqtt,
            Some((scheme, _)) if is_scheme(scheme) => {
                bail!("--bridge: no bridge speaks {scheme}://; {FORMS}")
            }
            _ => bail!("--bridge is no URL of a broker: {FORMS}"),
        };
        Ok(Self { kind, url: url.to_owned() })
    }

    /// Connects, and gives the host its bridge.
    pub(crate) async fn carry(
        &self,
        host: HostBuilder,
        appearance: Appearance,
    ) -> anyhow::Result<HostBuilder> {
        let Appearance { name, is_awaited, unencrypted } = appearance;
        match self.kind {
            Kind::Nats => {
                let mut bridge = NatsBridge::builder(&self.url).jetstream(JetStream::default());
                if let Some(name) = name {
                    bridge = bridge.instance(name);
                }
                if unencrypted {
                    bridge = bridge.unencrypted_to_other_machines();
                }
                Ok(host.bridge(Box::pin(bridge.connect()).await.map_err(|error| self.cannot(error))?))
            }
            Kind::RabbitMq => {
                let mut bridge = AmqpBridge::builder(&self.url);
                if let Some(name) = name {
                    bridge = bridge.instance(name);
                }
                if unencrypted {
                    bridge = bridge.unencrypted_to_other_machines();
                }
                Ok(host.bridge(Box::pin(bridge.connect()).await.map_err(|error| self.cannot(error))?))
            }
            Kind::Mqtt => {
                let mut bridge = MqttBridge::builder(&self.url);
                if let Some(name) = name {
                    // mosquitto 2.0 forgets shared subscriptions when it restarts, and with them what comes before their
                    // processes are back. One process writes the mails here, so its subscription need not be shared.
                    bridge = if is_awaited {
                        bridge.client_id(name).durable_in_one_process()
                    } else {
                        bridge.instance(name)
                    };
                }
                if unencrypted {
                    bridge = bridge.unencrypted_to_other_machines();
                }
                Ok(host.bridge(Box::pin(bridge.connect()).await.map_err(|error| self.cannot(error))?))
            }
        }
    }

    /// Whether the broker has to know a process by its name, for messages to wait for it.
    pub(crate) fn awaits_by_name(&self) -> bool {
        matches!(self.kind, Kind::Mqtt)
    }

    /// What becomes of an event once its sender was told that it is sent.
    pub(crate) fn promise(&self) -> &'static str {
        match self.kind {
            Kind::Nats => {
                "JetStream keeps each event until its mail is written, also when the server is killed"
            }
            Kind::RabbitMq => "RabbitMQ keeps each event until its mail is written, also when it is killed",
            Kind::Mqtt => {
                "the broker keeps each event for the one process that writes mails, as long as it keeps sessions: see docs/delivery.md"
            }
        }
    }

    /// What stands in the way, and what to do.
    fn cannot(&self, error: BridgeError) -> anyhow::Error {
        let remedy = match self.kind {
            // What has no cause outside of this program says itself what to change.
            _ if error.source().is_none() => "",
            Kind::Nats => " (a NATS server has to run there, with JetStream: `nats-server --jetstream`)",
            Kind::RabbitMq => " (RabbitMQ has to run there: `rabbitmq-server`)",
            Kind::Mqtt => " (a broker of MQTT 5 has to run there: `mosquitto`)",
        };
        let what = format!("--bridge: {self} cannot be used{remedy}");
        anyhow::Error::new(error).context(what)
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The addresses, without users, passwords, paths and options.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, url) in self.url.split(',').enumerate() {
            let (scheme, rest) = url.trim().split_once("://").unwrap_or(("", url.trim()));
            // The last `@` of all: a password that was not escaped may hold a slash.
            let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
            let place = place.split(['/', '?', '#']).next().unwrap_or_default();
            let comma = if nth > 0 { "," } else { "" };
            let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
            write!(f, "{comma}{scheme}{place}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_is_secret() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://ada:hunter2@one,nats://ada:hunter2@two:1", "nats://one,nats://two:1"),
            ("amqp://ada:hunter2@host:5672/%2f?heartbeat=3", "amqp://host:5672"),
            ("mqtts://ada:hunter2/@host", "mqtts://host"),
            ("mqtt://token@host", "mqtt://host"),
            ("nats://one,hunter2@two", "nats://one,two"),
        ] {
            assert_eq!(
                Broker::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).to_string(),
                shown
            );
        }
    }

    #[test]
    fn what_is_no_broker_is_refused_with_those_that_are() {
        for url in
            ["redis://ada:hunter2@host", "http://hunter2", "hunter2", "ada:hunter2@host://", "://hunter2", ""]
        {
            let Err(error) = Broker::parse(url) else { panic!("{url} is no broker") };
            let error = error.to_string();
            let names_all = ["nats://", "amqp://", "mqtt://"].iter().all(|scheme| error.contains(scheme));
            assert!(names_all && !error.contains("hunter2"), "{url}: {error}");
        }
        let Err(error) = Broker::parse("redis://host") else { panic!("it speaks redis") };
        assert!(error.to_string().contains("redis://"), "{error}");
    }
}
