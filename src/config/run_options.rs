//! What commands in messages repeat of this run.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{Config, first_of_list, variable};
use crate::log;
use crate::message::command::RunOptions;
use crate::message::span;
use crate::model::account::DEFAULT_ACCOUNT;
use crate::upstream::credentials;

impl Config<'_> {
    /// Returns what commands in messages repeat of this run. Paths are absolute, as they may be pasted elsewhere.
    pub(super) fn run_options(&self) -> RunOptions {
        let absolute = |path: &Path| match path.as_os_str() == "-" {
            true => "-".to_owned(),
            false => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                // A path may hold a secret by mistake.
                log::without_secrets(&absolute.display().to_string()).into_owned()
            }
        };
        let given = self.given;
        let path = |path: &Option<PathBuf>| path.as_deref().map(absolute);
        let text = |text: &Option<String>| text.clone();
        // The unit's directory is not the one in which the command is pasted.
        let of_unit = || variable("STATE_DIRECTORY").as_deref().and_then(first_of_list);
        let dir = self.common.dir.clone().or_else(|| match self.file.dir {
            None => of_unit(),
            Some(_) => None,
        });
        let refresh_before = given.refresh_before.map(|it| span(it).replace(' ', ""));
        let common = [
            ("--config", path(&self.common.config)),
            ("--dir", path(&dir)),
            ("--refresh-before", refresh_before),
        ];
        let api = given.api.and_then(|api| api.to_possible_value());
        let secret_file = path(&given.secret_file).or_else(|| {
            credentials::find_credential(&format!("{DEFAULT_ACCOUNT}.secret"))
                .map(|it| absolute(&it))
        });
        let account = [
            ("--appid", text(&given.appid)),
            ("--api", api.map(|api| api.get_name().to_owned())),
            ("--secret-file", secret_file.clone()),
            ("--base-url", text(&given.base_url)),
            ("--ca-file", path(&given.ca_file)),
            ("--file", path(&given.file)),
        ];
        let has_config = !self.is_account_given();
        let secret_variable = (!has_config && secret_file.is_none() && credentials::has_variable())
            .then_some(credentials::VARIABLE);
        let mut to_fill_in = Vec::new();
        if !has_config && given.appid.is_none() {
            to_fill_in.push("--appid APPID");
        }
        if !has_config && secret_file.is_none() && secret_variable.is_none() {
            to_fill_in.push("--secret-file FILE");
        }
        let set = |(flag, value): (&'static str, Option<String>)| value.map(|value| (flag, value));
        RunOptions {
            program: program(),
            common: common.into_iter().filter_map(set).collect(),
            account: account.into_iter().filter_map(set).filter(|_| !has_config).collect(),
            secret_variable,
            to_fill_in,
            has_config,
        }
    }
}

/// Returns how this program was called; by its path alone if it is not found by its name.
fn program() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    match Path::new(&program).components().count() > 1 {
        true => std::path::absolute(&program).unwrap_or(program.into()).display().to_string(),
        false => "wxtoken".to_owned(),
    }
}
