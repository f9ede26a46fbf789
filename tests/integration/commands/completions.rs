//! `completions`: the script of each shell, in that shell.

use std::process::Command;

use crate::support::*;

/// Two accounts, in the file that `WXTOKEN_CONFIG` names.
const CONFIG: &str = "[account.shop]\nappid = 'wx0123456789abcdef'\n[account.crm_2]\nappid = 'ww0123456789abcdef'\napi = 'work'\n";

/// A directory with a config, and `wxtoken` as a program of that name.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        write_with_mode(&dir.path().join("wxtoken.toml"), CONFIG, 0o600);
        std::fs::write(dir.path().join("some file.secret"), "").unwrap();
        Desk { dir }
    }

    /// Returns what a shell prints that runs this script where wxtoken is on the path.
    fn run(&self, shell: &str, args: &[&str], script: &str) -> String {
        let mut command = Command::new(shell);
        let program_dir = std::path::Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
        let path = format!("{}:{}", program_dir.display(), std::env::var("PATH").unwrap());
        command
            .args(args)
            .args(["-c", script])
            .current_dir(self.dir.path())
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("TERM", "dumb")
            .env("WXTOKEN_CONFIG", self.dir.path().join("wxtoken.toml"));
        let ran = Run::new(command).exits(0);
        assert_eq!(ran.stderr, "", "{script}");
        ran.stdout
    }
}

#[test]
fn bash_completes_verbs_options_values_and_accounts() {
    let desk = Desk::new();
    for (words, expected) in [
        ("wxtoken sta", "status\n"),
        ("wxtoken status --form", "--format\n"),
        ("wxtoken status --format js", "json\n"),
        ("wxtoken status --format = js", "json\n"),
        ("wxtoken fetch sh", "shop\n"),
        ("wxtoken fetch ''", "crm_2\nshop\n"),
        ("wxtoken key me shop,cr", "shop,crm_2\n"),
        ("wxtoken fetch --config nowhere.toml sh", ""),
        ("wxtoken get shop ''", ""),
    ] {
        let script = format!(
            "source <(wxtoken completions bash) && complete -p wxtoken >/dev/null && COMP_WORDS=({words}) && \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && _wxtoken wxtoken && \
             [ ${{#COMPREPLY[@]}} = 0 ] || printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        assert_eq!(desk.run("bash", &["--norc"], &script), expected, "{words}");
    }
    // Paths are completed by bash itself.
    let script = "source <(wxtoken completions bash); compopt() { echo \"$@\"; }; \
                  COMP_WORDS=(wxtoken fetch --secret-file s) COMP_CWORD=3; _wxtoken wxtoken";
    assert_eq!(desk.run("bash", &["--norc"], script), "-o default -o filenames\n");
}

/// Types a line and a tab into an interactive zsh, and has the completed line printed.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty typist zsh -f -i
zpty -w typist 'PS1= RPS1=; unsetopt zle_bracketed_paste beep prompt_sp; autoload -U compinit && compinit -D && source <(wxtoken completions zsh); print "rea""dy"'
zpty -r -m typist ignored '*ready*'
zpty -w -n typist "$LINE"$'\t\C-aprint -r -- "<<\C-e>>"\n'
zpty -r -m typist answer $'*\n<<*>>*'
answer=${answer##*$'\n<<'}
print -r -- "${answer%%>>*}"
"#;

#[needs(zsh)]
#[test]
fn zsh_completes_verbs_options_values_accounts_and_paths() {
    let desk = Desk::new();
    for (line, expected) in [
        ("wxtoken sta", "wxtoken status"),
        ("wxtoken status --form", "wxtoken status --format"),
        ("wxtoken status --format js", "wxtoken status --format json"),
        ("wxtoken status --format=js", "wxtoken status --format=json"),
        ("wxtoken fetch sh", "wxtoken fetch shop"),
        ("wxtoken key me shop,cr", "wxtoken key me shop,crm_2"),
        ("wxtoken fetch --secret-file so", "wxtoken fetch --secret-file some\\ file.secret"),
    ] {
        let script = format!("LINE='{line}'\n{ZSH}");
        assert_eq!(desk.run("zsh", &["-f"], &script).trim_end(), expected, "{line}");
    }
}

#[needs(fish)]
#[test]
fn fish_completes_verbs_options_values_accounts_and_paths() {
    let desk = Desk::new();
    for (line, expected) in [
        ("wxtoken sta", "status\tShow what is published and how long it lasts\n"),
        ("wxtoken status --format js", "json\tFor programs\n"),
        ("wxtoken status --format=js", "--format=json\tFor programs\n"),
        ("wxtoken fetch sh", "shop\n"),
        ("wxtoken fetch ", "crm_2\nshop\n"),
        ("wxtoken fetch --secret-file so", "some file.secret\n"),
        ("wxtoken get shop ", ""),
    ] {
        let script = format!("wxtoken completions fish | source; complete -C '{line}'");
        assert_eq!(desk.run("fish", &["--no-config"], &script), expected, "{line}");
    }
    let script = "set -x WXTOKEN_LANG zh; wxtoken completions fish | source; complete -C 'wxtoken status --format js'";
    assert_eq!(desk.run("fish", &["--no-config"], script), "json\t供程序使用\n");
}
