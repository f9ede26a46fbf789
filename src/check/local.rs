//! Findings about this host: the secret, the place of the documents, the lock and the hook.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

use super::Finding;
use crate::error::Exit;
use crate::model::document::rfc3339;
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::os::ca_store::CaStore;
use crate::os::hook::Hook;
use crate::store::{DirectoryState, LeaseState, LostAnswers, PublishTrial};
use crate::upstream::UpstreamError;
use crate::upstream::credentials::SecretSource;

/// The AppSecret, or a mirror's key. `source` is where it comes from, and `read` the result of reading it.
pub(crate) fn secret(
    is_mirror: bool,
    source: Option<&SecretSource<'_>>,
    read: &Result<Option<Secret>>,
) -> Finding {
    let about = if is_mirror { "key" } else { "secret" };
    match (source, read) {
        (Some(source), Ok(Some(_))) => Finding::good(about, describe(source)),
        (_, Ok(_)) => Finding::good(about, "none: the other wxtoken knows this host by its address"),
        (Some(_), Err(err)) => Finding::from_error(about, err).remedy(
            "It is to be alone on one line, in a file with mode 0600 of the user who fetches.",
            "文件中应只有密钥本身一行，权限 0600，属于运行 fetch 的用户。",
        ),
        (None, Err(_)) => Finding::notice(about, "this host has no AppSecret for it, so whether WeChat accepts it was not tried")
            .remedy(
                "Well where another host or a unit with a credential (LoadCredential) asks; else name a file in secret_file.",
                "若由其他主机或带凭据（LoadCredential）的 systemd 单元刷新则无妨，否则请用 secret_file 指定密钥文件。",
            ),
    }
}

/// A description of a source, with the mode of its file.
fn describe(source: &SecretSource<'_>) -> String {
    let with_mode = |path: &Path| {
        let mode = path.metadata().map(|it| it.permissions().mode() & 0o7777);
        let mode = mode.map(|mode| format!(", mode {mode:04o}")).unwrap_or_default();
        format!("{}{mode}", path.display())
    };
    match source {
        SecretSource::Stdin => "from standard input".to_owned(),
        SecretSource::File(path) | SecretSource::FileOrPipe(path) => with_mode(path),
        SecretSource::Credential(path) => format!("systemd credential {}", with_mode(path)),
        SecretSource::Variable => "from WXTOKEN_SECRET".to_owned(),
    }
}

/// The system's CA store, as it was read; `None` if the environment names none.
pub(crate) fn ca_store(read: Result<&CaStore, &str>) -> Option<Finding> {
    let about = "roots";
    match read {
        Ok(store) if store.sources.is_empty() => None,
        Ok(CaStore { certificates, sources }) => Some(Finding::good(
            about,
            format!("beside the public ones {} of {}", certificates.len(), sources.join(" and ")),
        )),
        Err(what) => Some(Finding::problem(about, Exit::Usage, what).remedy(
            "Correct the variable or unset it: the public roots need none.",
            "请修正或删除该环境变量：公共根证书已内置。",
        )),
    }
}

/// Whether documents can be published at this location. `trial` is the result of trying.
pub(crate) fn location(location: &Location, trial: &PublishTrial) -> Finding {
    match trial {
        PublishTrial::Directory(tried) => directory(location, tried),
        PublishTrial::Redis(tried) => redis(location, tried),
    }
}

fn directory(location: &Location, tried: &Result<DirectoryState>) -> Finding {
    let about = "directory";
    match tried {
        Ok(DirectoryState::Ready) => {
            Finding::good(about, format!("{location} can be published: writing, renaming and locking work"))
        }
        Ok(DirectoryState::Network(kind)) => Finding::notice(
            about,
            format!("{location} can be published, on {kind}: whether its locks hold between hosts cannot be tried from one"),
        )
        .remedy(
            "Let one host fetch and the others read, or be mirrors of it.",
            "请只让一台主机刷新，其他主机只读取，或做只读副本。",
        ),
        Ok(DirectoryState::Missing) => {
            Finding::good(about, format!("the directory of {location} is not there yet; the first fetch makes it"))
        }
        Err(err) => Finding::problem(about, Exit::Failure, format!("{location} cannot be published: {err:#}")).remedy(
            "Run fetch as the user whose directory it is, or give another --dir; free space on a full disk.",
            "请以目录所属用户运行 fetch，或用 --dir 指定其他目录；磁盘已满时请先清理。",
        ),
    }
}

fn redis(location: &Location, tried: &Result<Vec<anyhow::Error>>) -> Finding {
    let about = "store";
    match tried {
        Ok(faults) if faults.is_empty() => Finding::good(
            about,
            format!("{location} can be published: Redis answers, and can be written"),
        ),
        Ok(faults) => {
            let faults: Vec<_> = faults.iter().map(|fault| format!("{fault:#}")).collect();
            let faults = faults.join("; ");
            let what = format!("{location} can be published, but {faults}");
            Finding::problem(about, Exit::Failure, what).remedy(
                "Tokens are refreshed all the same; programs that read this key get none.",
                "token 照常刷新，但读取该键的程序得不到它。",
            )
        }
        Err(err) => Finding::problem(
            about,
            Exit::Failure,
            format!("{location} cannot be published: {err:#}"),
        )
        .remedy(
            "See store and [redis] in the config, and whether Redis runs and lets this host in.",
            "请检查配置中的 store 与 [redis]，以及 Redis 是否运行并允许本机访问。",
        ),
    }
}

/// A secret that is not the one that got the published token.
pub(crate) fn other_secret() -> Finding {
    Finding::notice(
        "record",
        "the secret is not the one that got the published token; the next fetch asks WeChat",
    )
    .remedy(
        "Well if the secret was replaced just now; else see which one each host has.",
        "若刚刚更换过 Secret 则无妨，否则请核对各主机使用的 Secret。",
    )
}

/// Answers that were lost within a day, on the API where each costs a token.
pub(crate) fn lost_answers(lost: &LostAnswers) -> Finding {
    let LostAnswers { count, last_at, next_at } = lost;
    let count = match count {
        1 => "1 answer of WeChat was".to_owned(),
        count => format!("{count} answers of WeChat were"),
    };
    let last_at = rfc3339(*last_at);
    let next = next_at.map(|at| format!("; the next request follows at {}", rfc3339(at)));
    let next = next.unwrap_or_default();
    Finding::notice(
        "record",
        format!(
            "{count} lost within a day, the last at {last_at}; each may have cost a token{next}"
        ),
    )
    .remedy(
        "See what cuts connections off (proxy, firewall, network), or set api = \"stable\", where asking again costs none.",
        "请排查代理、防火墙与网络，或改用 api = \"stable\"（重复请求不消耗 token）。",
    )
}

/// A refusal, not of the credentials, that still keeps `fetch` from asking.
pub(crate) fn still_refused(error: &UpstreamError) -> Finding {
    Finding::notice("record", error.to_string())
}

/// Whether the program of a hook can be run.
pub(crate) fn hook(hook: &Hook) -> Finding {
    let (about, key) = ("hook", hook.kind().key());
    match hook.find() {
        Ok(path) => Finding::good(about, format!("{key} runs {}", path.display())),
        Err(err) => Finding::problem(
            about,
            Exit::Hook,
            format!("{key} cannot run {}: {err}", hook.program().display()),
        )
        .remedy(
            "Name a program by its path, beside the config, or one that is in PATH of whoever fetches; and let them execute it.",
            "请写程序的路径（相对于配置文件），或运行 fetch 的用户 PATH 中的程序，并确认其有执行权限。",
        ),
    }
}

/// Whether the lock is free. `trial` is the result of trying to publish.
pub(crate) fn lock(trial: &PublishTrial, state: &Result<LeaseState>) -> Finding {
    let about = "lock";
    match state {
        Ok(LeaseState::Free) => Finding::good(about, "free"),
        Ok(LeaseState::Held(holder)) => {
            let holder = holder.as_deref().unwrap_or("another process");
            Finding::notice(
                about,
                format!("held by {holder}: it is asking WeChat right now, or hangs"),
            )
            .remedy(
                "Look again in a minute; a fetch ends itself after its --timeout.",
                "请一分钟后再看；fetch 到 --timeout 会自行结束。",
            )
        }
        // The finding about the store is the problem.
        Err(err) if matches!(trial, PublishTrial::Redis(_)) => {
            Finding::notice(about, format!("nobody can tell: {err:#}"))
                .remedy("See store, above.", "见上面的 store 一项。")
        }
        Err(err) => Finding::problem(about, Exit::Failure, format!("{err:#}"))
            .remedy("Run check as the user who fetches.", "请以运行 fetch 的用户执行 check。"),
    }
}
