//! A validated command in the process, 64 callers on 2 workers, beside echoes over a queue and two frameworks of actors.

use anyhow::{Result, ensure};
use futures_util::FutureExt;
use purista::host::Host;
use purista_benches::callers::{CALLERS, runtime, together};
use purista_benches::echo;
use purista_benches::harness::{Contestant, compare, rounds_asked, work};
use purista_benches::sign_up::{SignUp, SignedUp, user_service};
use purista_core::in_process::InProcessBridge;
use tokio_util::task::TaskTracker;

/// How often each caller asks in one round.
const QUESTIONS: u64 = 3_000;

/// One contestant: 64 callers that ask the same, one question after another. A macro, since a closure that lends what it
/// asks to the future it returns would have to box that future, and the box would be measured too.
macro_rules! asking {
    ($name:literal, $asked:ident => $answer:expr) => {
        Contestant::new($name, CALLERS * work(QUESTIONS), move || {
            let asked = $asked.clone();
            let caller = move || {
                let $asked = asked.clone();
                async move {
                    for _ in 0..work(QUESTIONS) {
                        let answer: SignedUp = $answer;
                        ensure!(answer.user_id > 0, "an answer of nobody");
                    }
                    Ok(())
                }
            };
            together(caller).boxed()
        })
    };
}

fn main() -> Result<()> {
    let rounds = rounds_asked(15)?;
    runtime()?.block_on(async {
        let host = Host::builder().service(user_service()).start().await?;
        let encoding_host = Host::builder()
            .bridge(InProcessBridge::always_encoding())
            .service(user_service())
            .start()
            .await?;
        let tasks = TaskTracker::new();
        let (bare, ruled, encoding) = (echo::bare(&tasks), echo::with_rules(&tasks), echo::encoding(&tasks));
        let (kameo, ractor) = (echo::kameo(), echo::ractor().await?);

        let (typed, encoded) = (host.client().clone(), encoding_host.client().clone());
        let contestants = vec![
            asking!("purista, typed", typed => typed.invoke(SignUp::sample()).await?),
            asking!("mpsc + oneshot echo, same rules", ruled => ruled.ask(SignUp::sample()).await??),
            asking!("mpsc + oneshot echo, bare", bare => bare.ask(SignUp::sample()).await?),
            asking!("kameo, ask, same rules", kameo => echo::ask_kameo(&kameo).await?),
            asking!("ractor, call, same rules", ractor => echo::ask_ractor(&ractor).await?),
        ];
        println!("{}", compare(rounds, contestants).await?.table("A validated command in the process", 0));

        let contestants = vec![
            asking!("purista, always encoding", encoded => encoded.invoke(SignUp::sample()).await?),
            asking!("mpsc + oneshot echo, same rules, JSON both ways",
                encoding => echo::ask_encoded(&encoding, &SignUp::sample()).await?),
        ];
        println!("{}", compare(rounds, contestants).await?.table("The same, encoded", 0));
        host.stop().await;
        encoding_host.stop().await;
        Ok(())
    })
}
