//! Service `User`: who has an account.

use purista::{Context, HandlerError, Service, command};

use crate::contracts::{NewUserRegistered, SignUp, USER};

/// The service, ready for a host.
pub(crate) fn user_service() -> Service {
    Service::builder(USER, "Accounts and sign-up", ()).command(command(user_sign_up).success_event()).build()
}

/// The state, the event and the answer are committed together, or not at all.
async fn user_sign_up(ctx: Context<()>, input: SignUp) -> Result<NewUserRegistered, HandlerError> {
    let key = format!("email/{}", input.email.to_lowercase());
    if ctx.state().get::<String>(&key).await?.is_some() {
        return Err(HandlerError::conflict("this e-mail address is taken"));
    }
    let user_id = ctx.new_id().to_string();
    ctx.state().set(&key, &user_id)?;
    Ok(NewUserRegistered { user_id, email: input.email, name: input.name })
}
