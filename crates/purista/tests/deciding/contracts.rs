//! Accounts with unique e-mails, and the decisions about them.

use garde::Validate;
use purista::{
    Command, Event, Facts, HandlerError, Service, ServiceBuilder, ServiceId, Tags, View, every, view,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) const ACCOUNT: ServiceId = ServiceId::new("Account", "1");

macro_rules! contracts {
    ($(#[$rule:meta] $name:ident { $($(#[$field_rule:meta])* $field:ident: $type:ty),* })+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
        #[$rule]
        pub(crate) struct $name { $($(#[$field_rule])* pub(crate) $field: $type),* }
    )+ };
}

contracts! {
    #[garde(allow_unvalidated)] Register { user: String, #[garde(length(min = 3))] email: String }
    #[garde(allow_unvalidated)] Open { email: String }
    #[garde(allow_unvalidated)] Opened { user: String, at_second: i64 }
    #[garde(allow_unvalidated)] Registered { user: String, email: String }
    #[garde(allow_unvalidated)] Rename { user: String, name: String }
    #[garde(allow_unvalidated)] RenamedV1 { user: String, name: String }
    #[garde(allow_unvalidated)] Renamed { user: String, #[garde(length(max = 20))] name: String, times: u32 }
    #[garde(allow_unvalidated)] Pinged { user: String }
    #[garde(allow_unvalidated)] Look { user: String, as_of: Option<jiff::Timestamp>, at: Option<u64> }
    #[garde(allow_unvalidated)] Looked { name: String, position: u64 }
}

macro_rules! commands {
    ($($name:ident $wire:literal -> $output:ty;)+) => { $(
        impl Command for $name {
            const SERVICE: ServiceId = ACCOUNT;
            const NAME: &'static str = $wire;
            type Output = $output;
        }
    )+ };
}

commands! {
    Register "register" -> Registered;
    Open "open" -> Opened;
    Rename "rename" -> ();
    Look "look" -> Looked;
}

impl Event for Registered {
    const NAME: &'static str = "registered";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user).with("email", &self.email)
    }
}

impl Event for RenamedV1 {
    const NAME: &'static str = "renamed";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user)
    }
}

impl Event for Renamed {
    const NAME: &'static str = "renamed";
    const VERSION: u32 = 2;
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user)
    }
}

impl Event for Pinged {
    const NAME: &'static str = "pinged";
    const RECORDED: bool = false;
}

pub(crate) fn service() -> ServiceBuilder<()> {
    Service::builder(ACCOUNT, "Accounts", ())
}

/// Whether an account of this name exists, and whether somebody has this e-mail.
pub(crate) fn unique(command: &Register) -> (View<bool>, View<bool>) {
    let taken = || view(false).on(|taken, _: Registered| *taken = true);
    (taken().tagged("user", &command.user), taken().tagged("email", &command.email))
}

pub(crate) fn register(command: Register, (user, email): (bool, bool)) -> Result<Registered, HandlerError> {
    let Register { user: name, email: address } = command;
    match (user, email) {
        (true, _) => Err(HandlerError::conflict("the account exists")),
        (_, true) => Err(HandlerError::conflict("the e-mail is taken")),
        _ => Ok(Registered { user: name, email: address }),
    }
}

pub(crate) fn by_email(command: &Open) -> View<u32> {
    view(0).tagged("email", &command.email).on(|count, _: Registered| *count += 1)
}

/// Answers with something else than its events.
#[expect(clippy::unnecessary_wraps, reason = "what a decision returns")]
pub(crate) fn open(
    command: Open,
    _: u32,
    facts: &Facts,
) -> Result<impl purista::Decision<Opened> + use<>, HandlerError> {
    use purista::Events;
    let user = facts.id.to_string();
    let registered = Registered { user: user.clone(), email: command.email };
    Ok((registered, Pinged { user: user.clone() })
        .replying(Opened { user, at_second: facts.now.as_second() }))
}

pub(crate) fn name(user: &str) -> View<(String, u32)> {
    view((String::new(), 0)).tagged("user", user).on(|(name, times): &mut (String, u32), event: Renamed| {
        *name = event.name;
        *times = event.times;
    })
}

pub(crate) fn kept_name(user: &str) -> View<(String, u32)> {
    name(user).snapshot("name", 1, every(3))
}

pub(crate) fn names(command: &Rename) -> View<(String, u32)> {
    kept_name(&command.user)
}

/// Records nothing where nothing changes.
#[expect(clippy::unnecessary_wraps, reason = "what a decision returns")]
pub(crate) fn rename(command: Rename, (name, times): (String, u32)) -> Result<Option<Renamed>, HandlerError> {
    let Rename { user, name: new } = command;
    Ok((name != new).then_some(Renamed { user, name: new, times: times + 1 }))
}

pub(crate) fn to_register(user: &str, email: &str) -> Register {
    Register { user: user.to_owned(), email: email.to_owned() }
}

pub(crate) fn registered(user: &str, email: &str) -> Registered {
    Registered { user: user.to_owned(), email: email.to_owned() }
}

pub(crate) fn to_rename(user: &str, name: &str) -> Rename {
    Rename { user: user.to_owned(), name: name.to_owned() }
}

pub(crate) fn renamed(name: &str, times: u32) -> Renamed {
    Renamed { user: "ada".to_owned(), name: name.to_owned(), times }
}
