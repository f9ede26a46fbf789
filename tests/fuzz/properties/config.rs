//! The config file.

use super::{Scratch, assert_tells_no_secret};
use crate::cli::{Cli, Command};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::log;
use crate::model::client_key::is_account;

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

pub fn check(data: &[u8]) {
    SCRATCH.with(|scratch| {
        let path = scratch.write("wxtoken.toml", data);
        let words = ["wxtoken", "serve", "--dir", "/nowhere", "--config"].map(Into::into);
        let words = words.into_iter().chain([path.clone().into_os_string()]);
        let cli = Cli::parse(words).expect("a command line");
        let Command::Serve(args) = &cli.command else { unreachable!("it is serve") };
        let read = || Config::read(&cli.common, &args.account, Secrets::Unneeded);
        let config = match read() {
            Ok(config) => config,
            Err(err) => return check_error(&err, &path.display().to_string(), data),
        };
        let again = read().expect("the same file");
        assert_eq!(config.serve(args), again.serve(args));
        match config.account_settings(&[]) {
            Ok(settings) => {
                assert_eq!(again.account_settings(&[]).expect("the same file"), settings);
                let names: Vec<_> = settings.iter().map(|it| &*it.account.name).collect();
                assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
                assert!(names.iter().all(|name| is_account(name)), "{names:?}");
                let all: Vec<_> = config.allowed().into_iter().map(|(name, _)| name).collect();
                assert_eq!(names, all);
            }
            Err(err) => check_error(&err, &path.display().to_string(), data),
        }
    });
}

/// Each problem names the file and no secret, and the status says that the config is at fault.
fn check_error(err: &anyhow::Error, path: &str, data: &[u8]) {
    assert_eq!(Exit::from_error(err), Exit::Usage, "{err:#}");
    let lines = Exit::lines(err);
    assert!(!lines.is_empty());
    for line in lines {
        assert!(line.contains(path), "{line:?} does not name the file");
        assert!(!line.contains('\n'), "{line:?}");
        assert!(!log::may_hold_secret(&line), "{line:?}");
        // Names of accounts are shown, and may be longer than other words.
        let told = line.split(['.', ' ']).filter(|word| !is_account(word)).collect::<Vec<_>>();
        assert_tells_no_secret(&told.join(" ").replace(path, ""), data);
    }
}
