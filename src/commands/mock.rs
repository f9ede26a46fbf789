//! `mock`: WeChat's stand-in, from its listening line on stdout until a signal ends it.
//! Checks what was typed; the rules and the faults are the `mock` room's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::output;
use crate::cli;
use crate::error::Exit;
use crate::log::printable;
use crate::mock::{APPID, Clock, Fault, SECRET, StandIn, Terms, WeChat};
use crate::model::secret::Secret;
use crate::os::signals::Shutdown;

/// Listens, says where, and stands in for WeChat until SIGTERM or SIGINT.
pub(super) fn run(args: &cli::MockArgs) -> anyhow::Result<Exit> {
    let listen = loopback(&args.listen)?;
    let accounts = accounts(&args.accounts)?;
    let fault = args.fault.as_deref().map(fault).transpose()?.flatten();
    let terms = terms(args)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let mut shutdown = Shutdown::listen_with_hangup().context("cannot wait for signals")?;
        let addr = listener.local_addr().context("cannot tell where it listens")?;
        output::print_listening(&[format!("http://{addr}")])?;

        let clock = Clock::start();
        let wechat = WeChat::new(accounts, terms, clock.now());
        tokio::task::spawn_local(StandIn::new(wechat, fault, clock).serve(listener));
        shutdown.requested().await;
        Ok(Exit::Done)
    })
}

/// The address to listen on. The stand-in believes everybody who can reach it, so nobody else can.
fn loopback(text: &str) -> anyhow::Result<SocketAddr> {
    let usage =
        |what: &str| Exit::Usage.error(format!("--listen {}: {what}", printable(text, 100)));
    let addr: SocketAddr =
        text.parse().map_err(|_| usage("expected ADDRESS:PORT, like 127.0.0.1:0"))?;
    if !addr.ip().to_canonical().is_loopback() {
        return Err(usage(
            "not a loopback address; the stand-in is for this host only, like 127.0.0.1:0",
        ));
    }
    Ok(addr)
}

/// The accounts that exist. An argument that is no account may be a bare secret: it is named by its place.
fn accounts(texts: &[String]) -> anyhow::Result<Vec<(String, Secret)>> {
    if texts.is_empty() {
        return Ok(vec![(APPID.to_owned(), Secret::new(SECRET.to_owned()))]);
    }
    let mut accounts: Vec<(String, Secret)> = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let usage = |what: &str| {
            Err(Exit::Usage
                .error(format!("--account number {}: {what}, expected APPID:SECRET", at + 1)))
        };
        match text.split_once(':') {
            None => return usage("no colon"),
            Some(("", _)) => return usage("no AppID before the colon"),
            Some((_, "")) => return usage("no secret after the colon"),
            // Each app of a corp has a secret of its own.
            Some((appid, secret))
                if accounts.iter().any(|known| known.0 == appid && known.1.expose() == secret) =>
            {
                return usage("an account for the second time");
            }
            Some((appid, secret)) => {
                accounts.push((appid.to_owned(), Secret::new(secret.to_owned())))
            }
        }
    }
    Ok(accounts)
}

fn fault(text: &str) -> anyhow::Result<Option<Fault>> {
    Fault::parse_or_none(text)
        .map_err(|why| Exit::Usage.error(format!("--fault {}: {why}", printable(text, 100))))
}

fn terms(args: &cli::MockArgs) -> anyhow::Result<Terms> {
    if args.life < Duration::from_secs(1) {
        return Err(Exit::Usage
            .error("--life: a token lives at least a second, WeChat counts in whole ones"));
    }
    Ok(Terms { life: args.life, overlap: args.overlap })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(answer: anyhow::Result<T>) -> String {
        let err = answer.unwrap_err();
        assert_eq!(Exit::from_error(&err), Exit::Usage);
        err.to_string()
    }

    #[test]
    fn only_loopback_is_listened_on() {
        for here in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert!(loopback(here).is_ok(), "{here}");
        }
        for elsewhere in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            assert!(refused(loopback(elsewhere)).contains("not a loopback address"), "{elsewhere}");
        }
        for nonsense in ["", "127.0.0.1", "localhost:80", ":80", "127.0.0.1:99999"] {
            assert!(refused(loopback(nonsense)).contains("expected ADDRESS:PORT"), "{nonsense}");
        }
    }

    #[test]
    fn a_malformed_account_is_named_by_its_place_and_never_shown() {
        for wrong in ["hush-hush", ":hush-hush", "hush-hush:"] {
            let message = refused(accounts(&["wx1:s".to_owned(), wrong.to_owned()]));
            assert!(message.starts_with("--account number 2: no "), "{message}");
            assert!(!message.contains("hush"), "{message}");
        }
        let twice = refused(accounts(&["wx1:hush".to_owned(), "wx1:hush".to_owned()]));
        assert!(twice.contains("for the second time") && !twice.contains("hush"), "{twice}");
    }

    #[test]
    fn a_secret_may_hold_colons_and_there_is_an_account_without_any() {
        assert_eq!(accounts(&["wx1:a:b".to_owned()]).unwrap()[0].1.expose(), "a:b");
        assert_eq!(accounts(&[]).unwrap()[0].0, "wx0123456789abcdef");
    }
}
