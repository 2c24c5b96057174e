use garde::Validate;
use purista::{Command, Event, HandlerError, Service, ServiceId, View, decide, view};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const USER: ServiceId = ServiceId::new("User", "1");

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct SignUp {
    email: String,
}
impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    type Output = Welcome;
}

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Welcome {
    text: String,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct SignedUp {
    email: String,
}
impl Event for SignedUp {
    const NAME: &'static str = "signedUp";
}

fn taken(_: &SignUp) -> View<bool> {
    view(false).on(|taken, _: SignedUp| *taken = true)
}

fn sign_up(command: SignUp, _: u32) -> Result<Welcome, HandlerError> {
    Ok(Welcome { text: command.email })
}

fn main() {
    let _ = Service::builder(USER, "Accounts", ()).command(decide(taken, sign_up));
}
