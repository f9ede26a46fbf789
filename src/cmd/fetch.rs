//! `wxtoken fetch`: asks WeChat for a token when one is due, and publishes it. Prints nothing.

use std::io::Read;

use anyhow::Result;
use zeroize::Zeroizing;

use crate::cli::{Common, Fetch};
use crate::clock::{Clock, SystemClock};
use crate::exit::Exit;
use crate::refresh::{Outcome, Refresh, Want};
use crate::report::{deed, failure};
use crate::secret::Secret;
use crate::source::client::Client;
use crate::source::wechat::WeChat;
use crate::store::file::FileStore;
use crate::{appsecret, config, token};

pub(crate) fn run(common: &Common, args: &Fetch) -> Result<Exit> {
    let deadline = SystemClock.instant() + args.timeout;
    let account = &args.account;
    let path = config::document_path(common, account)?;
    let want = want(args)?;
    let (appid, secret, client) = config::all(
        config::appid(account),
        appsecret::read(config::DEFAULT_ACCOUNT, account),
        Client::new(&account.base_url, account.ca_file.as_deref())
            .map_err(|err| Exit::Usage.error(format!("{err:#}"))),
    )?;

    let refresh = Refresh {
        appid,
        refresh_before: account.refresh_before,
        clock: &SystemClock,
        source: &WeChat::new(client, account.api, appid, secret),
        store: &FileStore::new(&path, args.mode),
    };
    let outcome = refresh.run(&want, deadline).map_err(|failure| {
        failure.exit().error(format!("{}: {failure}", config::DEFAULT_ACCOUNT))
    })?;

    match (&outcome, &want) {
        (Outcome::Confirmed(_), Want::NotThis(_)) => {
            Err(Exit::Unreachable.error(format!("{}: {AGAIN}", config::DEFAULT_ACCOUNT)))
        }
        (Outcome::Confirmed(_), Want::Another) => {
            failure!("fetch: {}: {AGAIN}", config::DEFAULT_ACCOUNT);
            Ok(Exit::Done)
        }
        (Outcome::Kept(document), _) => {
            let left = humantime::format_duration(document.promise(
                SystemClock.now(),
                account.api,
                account.refresh_before,
            ));
            deed!(
                "fetch: {}: token {} is not due, {left} left",
                config::DEFAULT_ACCOUNT,
                document.token.fingerprint()
            );
            Ok(Exit::Done)
        }
        _ => Ok(Exit::Done),
    }
}

/// What is said when another token was wanted and WeChat gave the old one without a word.
const AGAIN: &str = "WeChat gave the same token again: on the stable API it mints another at most every 30 s and \
                     20 times a day; try again later. 微信返回了原 token：stable 接口强制刷新须间隔 30 秒、每天最多 20 次，请稍后再试。";

/// What is asked for.
fn want(args: &Fetch) -> Result<Want> {
    let rejected = match args.rejected.as_deref() {
        None if args.force => return Ok(Want::Another),
        None => return Ok(Want::Live),
        Some("-")
            if args.account.secret_file.as_ref().is_some_and(|path| path.as_os_str() == "-") =>
        {
            return Err(
                Exit::Usage.error("--rejected - and --secret-file - cannot both read stdin")
            );
        }
        Some("-") => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin().take(8192).read_to_string(&mut text).map_err(|err| {
                Exit::Usage.error(format!("cannot read the rejected token from stdin: {err}"))
            })?;
            text.trim().to_owned()
        }
        Some(token) => token.to_owned(),
    };
    if !token::is_token(&rejected) {
        return Err(Exit::Usage.error("--rejected is not a token"));
    }
    Ok(Want::NotThis(Secret::new(rejected)))
}
