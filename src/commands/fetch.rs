//! `wxtoken fetch`: asks WeChat for a token when one is due, and publishes it. Prints nothing.

use std::cell::Cell;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::Result;
use zeroize::Zeroizing;

use super::parallel;
use super::published;
use crate::cli::{CommonArgs, FetchArgs};
use crate::config::{AccountSettings, Config, Secrets};
use crate::error::Exit;
use crate::log::{debug, error, info};
use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::document::{self, Document};
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::model::status::TokenRequest;
use crate::os::clock::{Clock, SystemClock};
use crate::os::signals::Reprieve;
use crate::refresh::ticket::TicketRefresh;
use crate::refresh::{Outcome, Refresh};
use crate::store::Store;
use crate::upstream::connect::{Connector, UpstreamParts};
use crate::upstream::{TokenSource, Upstream};

/// What is said when another token was wanted and WeChat gave the old one without a word.
fn again(rules: Rules, want: &TokenRequest) -> &'static str {
    match (rules, want) {
        (Rules::Stable | Rules::Classic, _) => FORCED_AGAIN,
        (Rules::Work, _) => WORK_AGAIN,
        (Rules::Mirror, TokenRequest::OtherThan(_)) => MIRROR_AGAIN,
        (Rules::Mirror, _) => MIRROR_FORCED,
    }
}

const FORCED_AGAIN: &str = "WeChat gave the same token again: on the stable API it mints another at most every 30 s and \
                     20 times a day; try again later. \
                     微信返回了原 token：stable 接口强制刷新须间隔 30 秒、每天最多 20 次，请稍后再试。";

const WORK_AGAIN: &str = "WeCom gave the same token again, as it does while that lives: nothing makes it give another. If \
                          WeCom refuses it, look whether it is the right app's, and what errcode it is. \
                          企业微信返回了原 token：在其有效期内不会更换。如仍被拒绝，请核对 token 是否属于该应用，并查看错误码。";

const MIRROR_AGAIN: &str = "the wxtoken that this is a mirror of gave the same token again: it asked WeChat, which honours it. If \
                            WeChat refuses it, look whether it is the right account's, and what errcode it is. \
                            上级 wxtoken 确认该 token 仍有效。如仍被拒绝，请核对 token 是否属于该账号，并查看错误码。";

/// A mirror cannot force: its word about a token that was rejected is passed on, an order is not.
const MIRROR_FORCED: &str = "the wxtoken that this is a mirror of gave the same token again: to a mirror, --force is to ask that one \
                             at once. If WeChat rejects the token, say so with --rejected; else force it there. \
                             上级仍给出原 token：镜像的 --force 只是立即询问上级。token 若被微信拒绝，请用 --rejected 报告；否则请在上级强制更换。";

pub(crate) fn run(common: &CommonArgs, args: &FetchArgs) -> Result<Exit> {
    let deadline = SystemClock.instant() + args.timeout;
    let config = Config::read(common, &args.account, Secrets::Needed)?;
    let (mode, linker) = (config.mode(args.mode), Connector::default());
    let settings = config.account_settings(&args.names)?;
    let want = want(args)?;
    check_number(&want, settings.len(), !args.names.is_empty())?;
    Ok(parallel::for_each("fetch", &settings, |AccountSettings { account, upstream, .. }| {
        let link = linker.link(&account.name, upstream)?;
        fetch(account, link, &want, mode, deadline)
    }))
}

/// What replaces a token is about one account, or about those that were named.
fn check_number(want: &TokenRequest, accounts: usize, are_named: bool) -> Result<()> {
    match want {
        TokenRequest::OtherThan(_) if accounts > 1 => {
            Err(Exit::Usage.error("--rejected is about one account's token: name the ACCOUNT"))
        }
        TokenRequest::New if accounts > 1 && !are_named => Err(Exit::Usage.error(format!(
            "--force would replace the tokens of all {accounts} accounts: name those that you mean"
        ))),
        _ => Ok(()),
    }
}

/// Sees to it that the account's token is published, and then its tickets, and that who wants to know of another token
/// is told. What is wrong with one of them costs no other, as long as there is a token to ask with.
fn fetch(
    account: &Account,
    link: UpstreamParts,
    want: &TokenRequest,
    mode: u32,
    deadline: Instant,
) -> Result<()> {
    let upstream = link.upstream(account)?;
    let mut failures = Vec::new();
    let has_changed = Cell::new(false);
    let is_good = match fetch_token(account, &*upstream, want, mode, deadline) {
        Ok(changed) => {
            has_changed.set(changed);
            true
        }
        Err(failure) => {
            failures.push(failure);
            // A token that was rejected is none to ask with, whatever life it has left.
            !matches!(want, TokenRequest::OtherThan(_)) && !published_life(account).is_zero()
        }
    };
    if is_good {
        let fetch = |kind| fetch_ticket(account, &*upstream, kind, mode, deadline, &has_changed);
        failures.extend(account.tickets.iter().filter_map(|kind| fetch(kind).err()));
    }
    // After the tickets: whoever is told reads them, too.
    if has_changed.get() {
        failures.extend(run_hook(account).err());
    }
    Exit::combine(failures)
}

/// Runs what is to be run when the token changed. No lock is held, so that it may ask for the token itself. It does not
/// outlive us: a signal that would end us ends it first.
fn run_hook(account: &Account) -> Result<()> {
    let Some(hook) = &account.on_change else { return Ok(()) };
    let name = &account.name;
    debug!("{name}: running on_change");
    let reprieve = Reprieve::begin();
    let document = account.place.path(&DocumentKind::Token);
    match hook.run(name, &document, &|| reprieve.is_over()) {
        Err(failure) if reprieve.is_over() => {
            // Nobody will be there to tell it later.
            error!("fetch: {name}: {failure}");
            Ok(())
        }
        Ok(()) => {
            info!("fetch: {name}: on_change has run");
            Ok(())
        }
        Err(failure) => Err(Exit::Hook.error(format!("{name}: {failure}"))),
    }
}

/// Sees to it that the account's ticket of this type is published; tells `has_changed` where the token had to be replaced
/// for it.
fn fetch_ticket(
    account: &Account,
    upstream: &dyn Upstream,
    kind: &TicketType,
    mode: u32,
    deadline: Instant,
    has_changed: &Cell<bool>,
) -> Result<()> {
    let name = format!("{}: {kind} ticket", account.name);
    let token_store = account.place.store(&DocumentKind::Token, mode);
    let token_place = account.place.name_of(&DocumentKind::Token);
    let store = account.place.store(&DocumentKind::Ticket(kind.clone()), mode);
    let ticket = TicketRefresh {
        kind,
        place: &account.place.name_of(&DocumentKind::Ticket(kind.clone())),
        token: refresh_of(account, &name, &token_place, upstream, &*token_store)?,
        upstream,
        store: &*store,
        replaces_dead_token: true,
        has_renewed_token: Cell::default(),
    };
    let outcome = ticket.run(deadline);
    has_changed.set(has_changed.get() || ticket.has_renewed_token.get());
    match outcome {
        Ok(Outcome::Kept(_)) => {
            if let Err(err) = store.settle() {
                debug!("{name}: the document is left as it is: {err:#}");
            }
        }
        Ok(Outcome::Renewed(document) | Outcome::Confirmed(document)) => {
            info!("fetch: {name}: published {}", document.token.fingerprint());
        }
        Err(failure) => return Err(failure.exit().error(format!("{name}: {failure}"))),
    }
    Ok(())
}

/// The refresh of the account's token in `place`, called `name` in what is said of it.
fn refresh_of<'a>(
    account: &'a Account,
    name: &'a str,
    place: &'a str,
    source: &'a dyn TokenSource,
    store: &'a dyn Store,
) -> Result<Refresh<'a>> {
    Ok(Refresh {
        name,
        place,
        appid: account.needed_appid()?,
        rules: account.rules,
        refresh_before: account.refresh_before,
        clock: &SystemClock,
        source,
        store,
    })
}

/// Sees to it that a token of the account is published, and says what was done; whether it is another one than before.
fn fetch_token(
    account: &Account,
    upstream: &dyn Upstream,
    want: &TokenRequest,
    mode: u32,
    deadline: Instant,
) -> Result<bool> {
    let name = account.name.as_str();
    let store = account.place.store(&DocumentKind::Token, mode);
    let place = account.place.name_of(&DocumentKind::Token);
    let refresh = refresh_of(account, name, &place, upstream, &*store)?;
    let outcome = refresh.run(want, deadline).map_err(|failure| {
        // Whether it can wait until the morning.
        let urgency = match published_life(account) {
            Duration::ZERO => "no live token is published".to_owned(),
            life => format!("the published token lives for {}", humantime::format_duration(life)),
        };
        failure.exit().error(format!("{name}: {failure} ({urgency})"))
    })?;
    if let (Outcome::Kept(_), Err(err)) = (&outcome, store.settle()) {
        debug!("{name}: the document is left as it is: {err:#}");
    }

    if let Outcome::Renewed(document) = &outcome
        && account.rules == Rules::Classic
        && document.expires_in <= account.refresh_before
    {
        let (life, margin) = (document.expires_in, account.refresh_before);
        let [life, margin] = [life, margin].map(humantime::format_duration);
        error!(
            "fetch: {name}: --refresh-before {margin} is no less than the token's whole life of {life}: every run mints \
             another and kills the one before"
        );
    }
    let describe = |document: &Document| {
        let life = document.promise(SystemClock.now(), account.rules, account.refresh_before);
        format!("{}, {} left", document.token.fingerprint(), humantime::format_duration(life))
    };
    match (&outcome, want) {
        (Outcome::Confirmed(_), TokenRequest::OtherThan(_)) => {
            return Err(Exit::Unreachable.error(format!("{name}: {}", again(account.rules, want))));
        }
        (Outcome::Confirmed(_), TokenRequest::New) => {
            error!("fetch: {name}: {}", again(account.rules, want))
        }
        (Outcome::Confirmed(document), TokenRequest::Live | TokenRequest::Verified) => {
            info!("fetch: {name}: WeChat confirmed token {}", describe(document));
        }
        (Outcome::Renewed(document), _) => {
            info!("fetch: {name}: published token {}", describe(document));
        }
        (Outcome::Kept(document), _) => {
            info!("fetch: {name}: not due: token {}", describe(document));
        }
    }
    Ok(matches!(outcome, Outcome::Renewed(_)))
}

/// The life that the published token may be promised to have left; zero if there is none.
fn published_life(account: &Account) -> Duration {
    published::document_status(account, &DocumentKind::Token, SystemClock.now()).life()
}

/// What is asked for.
fn want(args: &FetchArgs) -> Result<TokenRequest> {
    let rejected = match args.rejected.as_deref() {
        None if args.force => return Ok(TokenRequest::New),
        None => return Ok(TokenRequest::Live),
        Some("-")
            if args.account.secret_file.as_ref().is_some_and(|path| path.as_os_str() == "-") =>
        {
            return Err(
                Exit::Usage.error("--rejected - and --secret-file - cannot both read stdin")
            );
        }
        Some("-") => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin()
                .take(8192) // More than any token and its line end.
                .read_to_string(&mut text)
                .map_err(|err| {
                    Exit::Usage.error(format!("cannot read the rejected token from stdin: {err}"))
                })?;
            text.trim().to_owned()
        }
        // A token may begin with one; with two, it is far more often missing.
        Some(flag) if flag.starts_with("--") => {
            return Err(Exit::Usage.error(
                "--rejected is followed by a flag; if that is the token, give it on stdin: --rejected -",
            ));
        }
        Some(token) => token.to_owned(),
    };
    if rejected.is_empty() {
        return Err(
            Exit::Usage.error("--rejected is empty: it takes the token that WeChat rejected")
        );
    }
    if !document::is_token(&rejected) {
        return Err(Exit::Usage.error("--rejected is not a token"));
    }
    Ok(TokenRequest::OtherThan(Secret::new(rejected)))
}
