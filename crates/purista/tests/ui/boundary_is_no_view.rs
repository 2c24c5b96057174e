use garde::Validate;
use purista::{Command, Event, HandlerError, Service, ServiceId, decide};
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
    type Output = SignedUp;
}

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct SignedUp {
    email: String,
}
impl Event for SignedUp {
    const NAME: &'static str = "signedUp";
}

fn taken(_: &SignUp) -> bool {
    false
}

fn sign_up(command: SignUp, _: bool) -> Result<SignedUp, HandlerError> {
    Ok(SignedUp { email: command.email })
}

fn main() {
    let _ = Service::builder(USER, "Accounts", ()).command(decide(taken, sign_up));
}
