use garde::Validate;
use purista::{Command, Context, Event, HandlerError, Service, ServiceId, command};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const USER: ServiceId = ServiceId::new("User", "1");
struct Accounts;
struct Mailer;

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct SignUp {
    #[garde(email)]
    email: String,
}
impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    type Output = NewUser;
}

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct NewUser {
    user_id: String,
}
impl Event for NewUser {
    const NAME: &'static str = "newUser";
}

fn sign_up(_ctx: Context<Accounts>, input: SignUp) -> Result<NewUser, HandlerError> {
    Ok(NewUser { user_id: input.email })
}

fn main() {
    let _ = Service::builder(USER, "Accounts", Accounts).command(command(sign_up));
}
