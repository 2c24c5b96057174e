//! Events of ours and of the strict peer's: who hears them, and who shares them with whom.

use std::collections::{BTreeMap, BTreeSet};

use purista::{Context, HandlerError, Host, RunningHost, Service, ServiceId, subscription};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::amqp::Amqp;
use crate::carrier::{Bridge, Carrier, PATIENCE, TAP_CAPACITY};
use crate::mixed::{MANY, sign_up};
use crate::peer::Peer;
use crate::running::client;
use crate::services::{self, NewUserRegistered};

/// Services of the peer's, of which ours are other instances.
const PEER: ServiceId = ServiceId::new("Peer", "1");
const PEER_DURABLE: ServiceId = ServiceId::new("PeerDurable", "1");

/// Who heard of which user: the group of those that share, and who of it.
pub(crate) type Heard = (&'static str, String, String);

#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) group: &'static str,
    pub(crate) host: String,
    pub(crate) heard: mpsc::Sender<Heard>,
}

async fn hears(ctx: Context<Listener>, event: NewUserRegistered) -> Result<(), HandlerError> {
    let Listener { group, host, heard } = ctx.resources().clone();
    Ok(heard.send((group, host, event.user_id)).await?)
}

/// A service of ours that hears of new users.
pub(crate) async fn listening(
    bridge: Bridge,
    id: ServiceId,
    listener: Listener,
    durable: bool,
) -> RunningHost {
    let hearing = subscription("hears", hears);
    let hearing = if durable { hearing.durable() } else { hearing };
    let service = Service::builder(id, "hears of new users", listener).subscription(hearing).build();
    Host::builder().bridge(bridge).service(service).start().await.unwrap()
}

/// Tells what a peer hears, for as long as the test runs.
fn forward(mut peer: Peer, listener: Listener) {
    let Listener { group, host, heard } = listener;
    let telling = async move {
        loop {
            let event = peer.next_heard().await;
            let user = event["payload"]["userId"].as_str().unwrap().to_owned();
            if heard.send((group, host.clone(), user)).await.is_err() {
                return;
            }
        }
    };
    TaskTracker::new().spawn(telling);
}

/// Events of the peer and of ours: every service gets each of them, one instance of it; so does the peer's service, of which
/// one of ours is an instance too.
async fn every_service_gets_every_event_and_its_instances_share_them<C: Carrier>() {
    const SHARED: ServiceId = ServiceId::new("Shared", "1");
    const ALONE: ServiceId = ServiceId::new("Alone", "1");
    const DURABLE: ServiceId = ServiceId::new("Durable", "1");
    let carrier = C::start().await;
    let (heard, mut hearing) = mpsc::channel(TAP_CAPACITY);
    let listener = |group, host: &str| Listener { group, host: host.to_owned(), heard: heard.clone() };
    let _hosts = [
        listening(carrier.bridge("shared1").await, SHARED, listener("shared", "shared1"), false).await,
        listening(carrier.bridge("shared2").await, SHARED, listener("shared", "shared2"), false).await,
        listening(carrier.bridge("alone1").await, ALONE, listener("alone", "alone1"), false).await,
        listening(carrier.durable_bridge("durable1").await, DURABLE, listener("durable", "durable1"), true)
            .await,
        listening(carrier.sharing_bridge("ours1").await, PEER, listener("peer", "ours1"), false).await,
    ];
    let mut groups = vec!["alone", "durable", "peer", "shared"];
    for instance in ["peer1", "peer2"] {
        let mut peer = Peer::on(&carrier, instance).await;
        peer.hear("Peer", "newUserRegistered", false).await;
        forward(peer, listener("peer", instance));
    }
    // Over MQTT all of PURISTA's services are one group: a second one would only take events from the first.
    if C::NAME != "mqtt" {
        let mut peer = Peer::on(&carrier, "peer3").await;
        peer.hear("PeerDurable", "newUserRegistered", true).await;
        forward(peer, listener("peer durable", "peer3"));
        groups.push("peer durable");
    }
    // Only on AMQP has PURISTA a durable queue that ours can be another consumer of.
    let _beside = if C::NAME == "amqp" {
        let bridge = carrier.durable_bridge("ours3").await;
        Some(listening(bridge, PEER_DURABLE, listener("peer durable", "ours3"), true).await)
    } else {
        None
    };

    let user = Host::builder().bridge(carrier.bridge("userInstance1").await).service(services::user());
    let _user = user.start().await.unwrap();
    let caller = carrier.bridge("callerInstance1").await;
    let client = client(&caller);
    let mut emitter = Peer::on(&carrier, "emitter").await;
    let mut expected = BTreeSet::new();
    for number in 0..MANY {
        expected.insert(client.invoke(sign_up(&number.to_string())).await.unwrap().user_id);
        emitter.emit("newUserRegistered", json!({"userId": format!("of-peer-{number}")})).await;
        expected.insert(format!("of-peer-{number}"));
    }
    let mut by_group = BTreeMap::<_, Vec<String>>::new();
    let mut members = BTreeMap::<_, BTreeSet<String>>::new();
    let all_heard = expected.len() * groups.len();
    let mut count = async |wanted: usize| {
        for _ in 0..wanted {
            let event = tokio::time::timeout(PATIENCE, hearing.recv()).await;
            let (group, host, user) = event.expect("everybody hears everything").unwrap();
            by_group.entry(group).or_default().push(user);
            members.entry(group).or_default().insert(host);
        }
    };
    count(all_heard).await;
    // And nothing twice: behind this one nothing is on its way.
    emitter.emit("newUserRegistered", json!({"userId": "last"})).await;
    count(groups.len()).await;
    expected.insert("last".to_owned());
    for group in groups {
        let mut users = by_group[group].clone();
        users.sort();
        assert_eq!(users, expected.iter().cloned().collect::<Vec<_>>(), "{group}");
    }
    assert_eq!(members["shared"].len(), 2, "both instances have their share");
    assert_eq!(members["peer"].len(), 3, "the peer's and ours have their share: {members:?}");
    if C::NAME == "amqp" {
        assert_eq!(members["peer durable"].len(), 2, "{members:?}");
    }
}

/// On AMQP a queue belongs to both: whoever declares it otherwise than the first is refused.
#[tokio::test]
#[ignore = "needs rabbitmq-server and pika: cargo xtask test"]
async fn both_declare_the_same_queues_whoever_comes_first() {
    for ours_first in [true, false] {
        let carrier = Amqp::start().await;
        let (heard, _hearing) = mpsc::channel(TAP_CAPACITY);
        let listener = || Listener { group: "", host: String::new(), heard: heard.clone() };
        let ours = async || {
            let user =
                Host::builder().bridge(carrier.bridge("userInstance1").await).service(services::user());
            let bridge = carrier.bridge("ours1").await;
            [
                user.start().await.unwrap(),
                listening(bridge.clone(), PEER, listener(), false).await,
                listening(bridge, PEER_DURABLE, listener(), true).await,
            ]
        };
        let theirs = async || {
            let mut peer = Peer::on(&carrier, "peerInstance1").await;
            peer.serve("User", "userSignUp", "signUp").await;
            peer.hear("Peer", "newUserRegistered", false).await;
            peer.hear("PeerDurable", "newUserRegistered", true).await;
            peer
        };
        if ours_first {
            let _ours = ours().await;
            theirs().await;
        } else {
            let _theirs = theirs().await;
            ours().await;
        }
    }
}

crate::carrier::everywhere!(every_service_gets_every_event_and_its_instances_share_them);
