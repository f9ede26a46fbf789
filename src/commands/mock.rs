//! The `mock` command: checks its arguments and runs WeChat's stand-in until a signal ends it.
//! The rules and the faults are in [`crate::mock`].

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::{messages, output};
use crate::cli;
use crate::error::Exit;
use crate::language::in_both;
use crate::log::{self, printable};
use crate::message::Message;
use crate::mock::{APPID, EpochClock, MockFault, MockServer, MockWeChat, SECRET, TokenLifetime};
use crate::model::secret::Secret;
use crate::os::clock::{Clock, SystemClock};
use crate::os::signals::Shutdown;

/// Listens, announces the address on stdout, and serves until SIGTERM, SIGINT or SIGHUP.
pub(super) fn run(args: &cli::MockArgs) -> anyhow::Result<Exit> {
    let listen = loopback_address(&args.listen)?;
    let accounts = parse_accounts(&args.accounts)?;
    let fault = args.fault.as_deref().map(parse_fault).transpose()?.flatten();
    let lifetime = lifetime(args)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    log::write_in_background();
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let mut shutdown = Shutdown::listen_with_hangup().context("cannot wait for signals")?;
        let addr = listener.local_addr().context("cannot tell where it listens")?;
        output::print_listening(&[format!("http://{addr}")])?;

        let seed = SystemClock.random();
        let clock = EpochClock::new(SystemClock);
        let wechat = MockWeChat::new(accounts, lifetime, clock.now(), seed);
        tokio::task::spawn_local(MockServer::new(wechat, fault, clock).serve(listener));
        shutdown.requested().await;
        Ok(Exit::Done)
    })
}

/// Parses the address to listen on. Only loopback is allowed, since the control routes take no credentials.
fn loopback_address(text: &str) -> anyhow::Result<SocketAddr> {
    let usage = |message: &Message<1>| Exit::Usage.error(message.with([&printable(text, 100)]));
    let addr: SocketAddr = text.parse().map_err(|_| usage(&messages::MOCK_LISTEN))?;
    if !addr.ip().to_canonical().is_loopback() {
        return Err(usage(&messages::MOCK_FOREIGN));
    }
    Ok(addr)
}

/// Parses the accounts that exist. Errors name an argument by its number: an invalid one can be a bare secret.
fn parse_accounts(texts: &[String]) -> anyhow::Result<Vec<(String, Secret)>> {
    if texts.is_empty() {
        return Ok(vec![(APPID.to_owned(), Secret::new(SECRET.to_owned()))]);
    }
    let mut accounts: Vec<(String, Secret)> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let usage = |english, chinese| {
            let values: [&dyn Display; 2] = [&(index + 1), &in_both(english, chinese)];
            Err(Exit::Usage.error(messages::MOCK_ACCOUNT.with(values)))
        };
        match text.split_once(':') {
            None => return usage("no colon", "没有冒号"),
            Some(("", _)) => return usage("no AppID before the colon", "冒号前没有 AppID"),
            Some((_, "")) => return usage("no secret after the colon", "冒号后没有 Secret"),
            // The apps of a corp share its AppID, and each has a secret.
            Some((appid, secret))
                if accounts.iter().any(|known| known.0 == appid && known.1.expose() == secret) =>
            {
                return usage("an account for the second time", "账号重复");
            }
            Some((appid, secret)) => {
                accounts.push((appid.to_owned(), Secret::new(secret.to_owned())))
            }
        }
    }
    Ok(accounts)
}

fn parse_fault(text: &str) -> anyhow::Result<Option<MockFault>> {
    MockFault::parse_or_none(text).map_err(|why| {
        let values: [&dyn Display; 2] = [&printable(text, 100), &why];
        Exit::Usage.error(messages::MOCK_FAULT.with(values))
    })
}

fn lifetime(args: &cli::MockArgs) -> anyhow::Result<TokenLifetime> {
    if args.life < Duration::from_secs(1) {
        return Err(Exit::Usage.error(messages::MOCK_LIFE.text()));
    }
    Ok(TokenLifetime { life: args.life, overlap: args.overlap })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the message of a usage error.
    fn usage_error<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
        let err = result.unwrap_err();
        assert_eq!(Exit::from_error(&err), Exit::Usage);
        err.to_string()
    }

    #[test]
    fn an_address_that_is_not_loopback_is_refused() {
        for valid in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert!(loopback_address(valid).is_ok(), "{valid}");
        }
        for foreign in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            assert!(
                usage_error(loopback_address(foreign)).contains("is not an address of loopback"),
                "{foreign}"
            );
        }
        for invalid in ["", "127.0.0.1", "localhost:80", ":80", "127.0.0.1:99999"] {
            assert!(
                usage_error(loopback_address(invalid)).contains("Write ADDRESS:PORT"),
                "{invalid}"
            );
        }
    }

    #[test]
    fn the_error_for_an_invalid_account_has_its_number_and_not_its_text() {
        for wrong in ["hush-hush", ":hush-hush", "hush-hush:"] {
            let message = usage_error(parse_accounts(&["wx1:s".to_owned(), wrong.to_owned()]));
            assert!(message.contains("--account number 2: no "), "{message}");
            assert!(!message.contains("hush"), "{message}");
        }
        let repeated = usage_error(parse_accounts(&["wx1:hush".to_owned(), "wx1:hush".to_owned()]));
        assert!(
            repeated.contains("for the second time") && !repeated.contains("hush"),
            "{repeated}"
        );
    }

    #[test]
    fn a_secret_can_contain_colons_and_without_arguments_a_default_account_exists() {
        assert_eq!(parse_accounts(&["wx1:a:b".to_owned()]).unwrap()[0].1.expose(), "a:b");
        assert_eq!(parse_accounts(&[]).unwrap()[0].0, "wx0123456789abcdef");
    }
}
