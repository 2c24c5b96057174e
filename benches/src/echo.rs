//! What a command in the process is compared with: the least that answers a question over a queue, and two frameworks of
//! actors. All of them run the same business, and the same rules where it is said.

use anyhow::{Context as _, Result, anyhow};
use garde::Validate;
use kameo::actor::Spawn as _;
use ractor::{Actor as _, ActorProcessingErr, RpcReplyPort};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::sign_up::{Accounts, SignUp, SignedUp};

/// How many questions wait in a queue, as in the in-process bridge's.
const QUEUE_MAX: usize = 1024;

/// The business with the rules of input and output.
fn ruled(accounts: &Accounts, input: SignUp) -> Result<SignedUp, garde::Report> {
    input.validate()?;
    let output = accounts.sign_up(input);
    output.validate()?;
    Ok(output)
}

/// A question, and where its answer goes.
type Asked<Q, A> = (Q, oneshot::Sender<A>);

/// Asks a task over a queue.
#[derive(Debug)]
pub struct Echo<Q, A>(mpsc::Sender<Asked<Q, A>>);

impl<Q, A> Clone for Echo<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Send + 'static, A: Send + 'static> Echo<Q, A> {
    fn start(tasks: &TaskTracker, answer: impl Fn(Q) -> A + Send + 'static) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Asked<Q, A>>(QUEUE_MAX);
        tasks.spawn(async move {
            while let Some((question, reply)) = receiver.recv().await {
                // Nobody of those who measure goes away.
                let _ = reply.send(answer(question));
            }
        });
        Self(sender)
    }

    /// The answer.
    pub async fn ask(&self, question: Q) -> Result<A> {
        let (reply, answer) = oneshot::channel();
        self.0.send((question, reply)).await.map_err(|_| anyhow!("the echo has ended"))?;
        answer.await.context("the echo gave no answer")
    }
}

/// No rules.
pub type Bare = Echo<SignUp, SignedUp>;

/// No rules.
pub fn bare(tasks: &TaskTracker) -> Bare {
    let accounts = Accounts::default();
    Echo::start(tasks, move |input| accounts.sign_up(input))
}

/// The rules of input and output.
pub type Ruled = Echo<SignUp, Result<SignedUp, garde::Report>>;

/// The rules of input and output.
pub fn with_rules(tasks: &TaskTracker) -> Ruled {
    let accounts = Accounts::default();
    Echo::start(tasks, move |input| ruled(&accounts, input))
}

/// JSON both ways, and the rules.
pub type Encoding = Echo<Vec<u8>, Result<Vec<u8>>>;

/// JSON both ways, and the rules; [`ask_encoded`] asks it.
pub fn encoding(tasks: &TaskTracker) -> Encoding {
    let accounts = Accounts::default();
    Echo::start(tasks, move |json: Vec<u8>| {
        let output = ruled(&accounts, serde_json::from_slice(&json)?)?;
        Ok(serde_json::to_vec(&output)?)
    })
}

/// Encodes the question and decodes the answer.
pub async fn ask_encoded(echo: &Encoding, input: &SignUp) -> Result<SignedUp> {
    let answer = echo.ask(serde_json::to_vec(input)?).await??;
    Ok(serde_json::from_slice(&answer)?)
}

/// An actor of kameo.
#[derive(Debug, Default)]
pub struct KameoActor(Accounts);

impl kameo::Actor for KameoActor {
    type Args = Self;
    type Error = std::convert::Infallible;

    async fn on_start(actor: Self, _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(actor)
    }
}

impl kameo::message::Message<SignUp> for KameoActor {
    type Reply = Result<SignedUp, garde::Report>;

    async fn handle(
        &mut self,
        input: SignUp,
        _: &mut kameo::message::Context<Self, Self::Reply>,
    ) -> Self::Reply {
        ruled(&self.0, input)
    }
}

/// Starts it with its own default mailbox.
pub fn kameo() -> kameo::actor::ActorRef<KameoActor> {
    KameoActor::spawn(KameoActor::default())
}

/// Asks it.
pub async fn ask_kameo(actor: &kameo::actor::ActorRef<KameoActor>) -> Result<SignedUp> {
    actor.ask(SignUp::sample()).await.map_err(|error| anyhow!("kameo: {error:?}"))
}

/// An actor of ractor.
#[derive(Debug)]
pub struct RactorActor;

/// What it is asked.
#[derive(Debug)]
pub struct RactorAsked(SignUp, RpcReplyPort<Result<SignedUp, garde::Report>>);

impl ractor::Actor for RactorActor {
    type Msg = RactorAsked;
    type State = Accounts;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ractor::ActorRef<RactorAsked>,
        (): (),
    ) -> Result<Accounts, ActorProcessingErr> {
        Ok(Accounts::default())
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<RactorAsked>,
        RactorAsked(input, reply): RactorAsked,
        accounts: &mut Accounts,
    ) -> Result<(), ActorProcessingErr> {
        reply.send(ruled(accounts, input))?;
        Ok(())
    }
}

/// Starts it.
pub async fn ractor() -> Result<ractor::ActorRef<RactorAsked>> {
    Ok(RactorActor::spawn(None, RactorActor, ()).await?.0)
}

/// Asks it.
pub async fn ask_ractor(actor: &ractor::ActorRef<RactorAsked>) -> Result<SignedUp> {
    let answer = ractor::call!(actor, RactorAsked, SignUp::sample());
    Ok(answer.map_err(|error| anyhow!("ractor: {error}"))??)
}
