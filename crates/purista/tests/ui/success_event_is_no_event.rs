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

#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Find {
    id: String,
}
impl Command for Find {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "find";
    type Output = Found;
}
#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Found {
    id: String,
}
async fn find(_ctx: Context<Accounts>, input: Find) -> Result<Found, HandlerError> {
    Ok(Found { id: input.id })
}

fn main() {
    let _ = Service::builder(USER, "Accounts", Accounts).command(command(find).success_event());
}
