//! `wxtoken key`: prints a new key for a client, and the line for the server's keys file that contains the key's digest.
//! Stores neither.

use anyhow::{Result, bail};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::messages;
use super::output;
use crate::cli::KeyArgs;
use crate::error::Exit;
use crate::log;
use crate::model::client_key::api_scope::ApiScope;
use crate::model::client_key::{self, KeyLine, RANDOM_BYTES};

/// Runs `wxtoken key`.
pub(crate) fn run(args: &KeyArgs) -> Result<Exit> {
    let words = std::iter::once(&args.name).chain(&args.accounts).chain(&args.apis);
    if words.into_iter().any(|word| log::may_hold_secret(word)) {
        return Err(Exit::Usage.error(messages::NAME_LIKE_SECRET.text()));
    }
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    if SystemRandom::new().fill(&mut *random).is_err() {
        bail!(messages::NO_RANDOMNESS.text());
    }
    let key = client_key::from_random(&random);
    let digest = client_key::digest(key.expose().as_bytes());
    let apis = ApiScope::parse(args.apis.iter().map(String::as_str));
    let line = apis
        .and_then(|apis| KeyLine::new(&args.name, digest, args.accounts.clone(), apis))
        .map_err(|fault| Exit::Usage.error(fault))?;
    let text = Zeroizing::new(format!("key:  {}\nline: {line}\n", key.expose()));
    output::print(&text)?;
    Ok(Exit::Done)
}
