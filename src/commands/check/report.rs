//! The findings of a check as text and as JSON. Text is printed as the findings come, account after account in the config's
//! order; what several accounts share is told once.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use serde::Serialize;

use crate::check::{Finding, Verdict};
use crate::commands::output;
use crate::commands::output::terminal::{Line, columns, laid_out, padded, wrapped};
use crate::language::{Language, is_unresolved};
use crate::log::{printable, without_secrets};

/// The longest text of a finding that is shown.
const MAX_WHAT: usize = 2000; // characters

/// The length of the longest word for what a finding is about.
const ABOUT_WIDTH: usize = "credentials".len();

/// How many accounts the last line names.
const MAX_NAMED: usize = 10;

/// How findings are shown as text.
#[derive(Clone, Copy)]
pub(super) struct TextStyle {
    pub(super) language: Language,
    pub(super) has_colours: bool,
    /// Good findings are left out.
    pub(super) only_problems: bool,
    /// The width of the terminal, on which a finding has several lines; `None` for a line each.
    pub(super) width: Option<usize>,
}

/// Collects the findings of accounts that are examined at the same time, and prints them in order.
pub(super) struct Report<'a> {
    accounts: &'a [&'a str],
    /// `None` prints nothing.
    style: Option<TextStyle>,
    print: &'a (dyn Fn(&str) -> Result<()> + Sync),
    state: Mutex<ReportState>,
}

#[derive(Default)]
struct ReportState {
    accounts: Vec<AccountFindings>,
    /// The index of the account whose findings are printed at once; those of later ones wait.
    current: usize,
    /// The first failure to print.
    failure: Option<anyhow::Error>,
}

#[derive(Default)]
struct AccountFindings {
    findings: Vec<Finding>,
    is_complete: bool,
    /// How many of the findings are printed.
    printed: usize,
    /// Whether something of this account was shown.
    is_shown: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        accounts: &'a [&'a str],
        style: Option<TextStyle>,
        print: &'a (dyn Fn(&str) -> Result<()> + Sync),
    ) -> Report<'a> {
        let none = accounts.iter().map(|_| AccountFindings::default()).collect();
        let state = Mutex::new(ReportState { accounts: none, ..ReportState::default() });
        Report { accounts, style, print, state }
    }

    /// Adds a finding about the account with this index.
    pub(super) fn add(&self, account: usize, finding: Finding) {
        let mut state = self.lock();
        state.accounts[account].findings.push(finding);
        self.print_what_is_due(&mut state);
    }

    /// Whether something was found of the account with this index that keeps a fetch from publishing.
    pub(super) fn is_fetch_in_vain(&self, account: usize) -> bool {
        let is_obstacle =
            |it: &Finding| matches!(it.verdict, Verdict::Problem(_)) && it.about != "hook";
        self.lock().accounts[account].findings.iter().any(is_obstacle)
    }

    /// Notes that no finding about this account follows.
    pub(super) fn complete(&self, account: usize) {
        let mut state = self.lock();
        state.accounts[account].is_complete = true;
        self.print_what_is_due(&mut state);
    }

    /// Prints the last line of the text, and returns the findings of each account. Fails if something could not be printed.
    pub(super) fn finish(self) -> Result<Vec<Vec<Finding>>> {
        let (accounts, print, style) = (self.accounts, self.print, self.style);
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = state.failure {
            return Err(failure);
        }
        if let Some(style) = style {
            let has_shown = state.accounts.iter().any(|it| it.is_shown);
            // A run from cron that finds nothing prints nothing.
            if has_shown || !style.only_problems {
                let gap = if style.width.is_some() && has_shown { "\n" } else { "" };
                print(&(gap.to_owned() + &ending(accounts, &state.accounts, style)))?;
            }
        }
        Ok(state.accounts.into_iter().map(|it| it.findings).collect())
    }

    fn lock(&self) -> MutexGuard<'_, ReportState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print_what_is_due(&self, state: &mut ReportState) {
        let Some(style) = self.style else { return };
        while let Some(account) = state.accounts.get(state.current) {
            let mut text = String::new();
            let mut is_shown = account.is_shown;
            for finding in &account.findings[account.printed..] {
                if style.only_problems && finding.verdict == Verdict::Good {
                    continue;
                }
                if !is_shown && style.width.is_some() && self.accounts.len() > 1 {
                    text += &format!("{}\n", self.accounts[state.current]);
                }
                is_shown = true;
                let earlier = self.account_with_same(state, finding);
                text += &self.entry(state.current, finding, earlier, style);
            }
            if !text.is_empty()
                && let Err(failure) = (self.print)(&text)
            {
                state.failure.get_or_insert(failure);
            }
            let account = &mut state.accounts[state.current];
            account.printed = account.findings.len();
            account.is_shown = is_shown;
            if !account.is_complete {
                return;
            }
            state.current += 1;
        }
    }

    /// Returns the name of an earlier account with the same finding, if that needs a person.
    fn account_with_same(&self, state: &ReportState, finding: &Finding) -> Option<&'a str> {
        let has_same =
            |account: &AccountFindings| account.findings.iter().any(|it| is_same(it, finding));
        let is_bad = finding.verdict != Verdict::Good;
        let earlier = state.accounts[..state.current].iter().position(has_same).filter(|_| is_bad);
        earlier.map(|index| self.accounts[index])
    }

    /// Returns a finding as text. `earlier` is an account with the same one.
    fn entry(
        &self,
        account: usize,
        finding: &Finding,
        earlier: Option<&str>,
        style: TextStyle,
    ) -> String {
        let Finding { about, verdict, what, remedy } = finding;
        let (sign, colour) = match verdict {
            Verdict::Good => ("✓", output::GREEN),
            Verdict::Notice => ("!", output::YELLOW),
            Verdict::Problem(_) => ("✗", output::RED),
        };
        let (on, off) = if style.has_colours { (colour, output::RESET) } else { ("", "") };
        let what_in = |language: Language| match earlier {
            Some(name) => language.text(format!("the same as {name}"), format!("与 {name} 相同")),
            None => language.resolve_with_commands(what),
        };
        let shown = |text: &str| printable(&without_secrets(text), MAX_WHAT);
        let remedy = remedy.as_ref().filter(|_| earlier.is_none());
        let Some(width) = style.width else {
            let name_width = self.accounts.iter().map(|it| it.len()).max().unwrap_or_default();
            let name = self.accounts[account];
            let what = shown(&style.language.resolve(&what_in(style.language)));
            let remedy = remedy.map(|[english, chinese]| style.language.text(english, chinese));
            let remedy = remedy.map(|it| style.language.resolve(&it).into_owned());
            let ends = what.ends_with(['.', '。', '?', '？']);
            let stop = match style.language {
                Language::Chinese if ends => "",
                _ if ends => " ",
                Language::Chinese => "。",
                Language::English | Language::Both => ". ",
            };
            let remedy = remedy.map(|it| format!("{stop}{it}")).unwrap_or_default();
            return format!(
                "{on}{sign}{off} {name:name_width$}  {about:ABOUT_WIDTH$}  {what}{remedy}\n"
            );
        };
        let indent = if self.accounts.len() > 1 { "  " } else { "" };
        let head = format!("{indent}{on}{sign}{off} {}", padded(about, ABOUT_WIDTH + 2));
        let margin = " ".repeat(indent.len() + 2 + ABOUT_WIDTH + 2);
        let room = width.saturating_sub(margin.len());
        // Two languages stand below each other; what has no words is in both the same.
        let languages = match style.language {
            Language::Both => &[Language::English, Language::Chinese][..],
            Language::English | Language::Chinese => &[style.language],
        };
        let (mut lines, mut said) = (Vec::new(), None);
        for language in languages {
            let what = what_in(*language);
            if said.as_ref() != Some(&what) {
                lines.extend(laid_out(&what, room, shown));
            }
            said = Some(what);
            let remedy = remedy.map(|[english, chinese]| language.text(english, chinese));
            let remedy = remedy.map(|it| laid_out(&it, room.saturating_sub(2), str::to_owned));
            let sign = |at| if at == 0 { "→ " } else { "  " };
            lines.extend(remedy.into_iter().flatten().enumerate().map(|(at, line)| match line {
                Line::Text(text) => Line::Text(format!("{}{text}", sign(at))),
                Line::Command(command) => Line::Command(command),
            }));
        }
        let mut entry = head;
        for (at, line) in lines.iter().enumerate() {
            entry += if at == 0 { "" } else { "\n" };
            match line {
                Line::Text(text) if at == 0 => entry += text,
                Line::Command(command) if columns(command) > room => entry += command,
                Line::Text(text) | Line::Command(text) => {
                    entry.extend([margin.as_str(), text.as_str()])
                }
            }
        }
        entry + "\n"
    }
}

/// Whether two findings have the same cause, as far as they say. The words of WeChat, in brackets, differ in each answer.
fn is_same(one: &Finding, other: &Finding) -> bool {
    fn cause(finding: &Finding) -> (&str, Verdict, &str, Option<&[String; 2]>) {
        let what = finding.what.split(" [").next().unwrap_or_default();
        (finding.about, finding.verdict, what, finding.remedy.as_ref())
    }
    cause(one) == cause(other)
}

/// Returns the last line; on a terminal as many as its width needs, with those of each language apart.
fn ending(names: &[&str], accounts: &[AccountFindings], style: TextStyle) -> String {
    let conclusion = |language| conclusion(names, accounts, language);
    let lines = match (style.width, style.language) {
        (None, language) => vec![conclusion(language)],
        (Some(width), Language::Both) => [Language::English, Language::Chinese]
            .into_iter()
            .flat_map(|language| wrapped(&conclusion(language), width))
            .collect(),
        (Some(width), language) => wrapped(&conclusion(language), width),
    };
    lines.join("\n") + "\n"
}

/// Returns the last line: how many problems there are, and which accounts have them.
fn conclusion(names: &[&str], accounts: &[AccountFindings], language: Language) -> String {
    let mut problems: Vec<&Finding> = Vec::new();
    let mut concerned = Vec::new();
    for (name, account) in names.iter().zip(accounts) {
        let is_problem = |it: &&Finding| matches!(it.verdict, Verdict::Problem(_));
        let of_account = account.findings.iter().filter(is_problem);
        for finding in of_account.clone() {
            if !problems.iter().any(|it| is_same(it, finding)) {
                problems.push(finding);
            }
        }
        concerned.extend(of_account.take(1).map(|_| *name));
    }
    let counted = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    };
    let all = counted(names.len(), "account");
    let rest = concerned.len().saturating_sub(MAX_NAMED);
    concerned.truncate(MAX_NAMED);
    let more = match rest {
        0 => (String::new(), String::new()),
        rest => (format!(" and {rest} more"), format!(" 等 {} 个", rest + MAX_NAMED)),
    };
    match problems.len() {
        0 => {
            let chinese = match names.len() {
                1 => "账号没有问题。".to_owned(),
                count => format!("{count} 个账号均无问题。"),
            };
            language.text(format!("No problem in {all}."), chinese)
        }
        count => language.text(
            format!("{} in {all}: {}{}.", counted(count, "problem"), concerned.join(", "), more.0),
            format!(
                "{} 个账号中发现 {count} 个问题：{}{}。",
                names.len(),
                concerned.join("、"),
                more.1
            ),
        ),
    }
}

/// The answer as JSON.
#[derive(Serialize)]
struct CheckJson<'a> {
    accounts: Vec<SubjectJson<'a>>,
}

#[derive(Serialize)]
struct SubjectJson<'a> {
    account: &'a str,
    /// The worst verdict of its findings.
    verdict: &'static str,
    findings: Vec<FindingJson<'a>>,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    about: &'static str,
    verdict: &'static str,
    what: String,
    /// `what` in Chinese; `None` if it has no words.
    #[serde(skip_serializing_if = "Option::is_none")]
    what_zh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy_zh: Option<Cow<'a, str>>,
    /// The exit status of a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
}

impl<'a> FindingJson<'a> {
    fn new(finding: &'a Finding) -> FindingJson<'a> {
        let [remedy, remedy_zh] = match &finding.remedy {
            Some([english, chinese]) => {
                [Some(Language::English.resolve(english)), Some(Language::Chinese.resolve(chinese))]
            }
            None => [None, None],
        };
        let what = |it: Language| printable(&without_secrets(&it.resolve(&finding.what)), MAX_WHAT);
        FindingJson {
            about: finding.about,
            verdict: word(finding.verdict),
            what: what(Language::English),
            what_zh: is_unresolved(&finding.what).then(|| what(Language::Chinese)),
            remedy,
            remedy_zh,
            exit: match finding.verdict {
                Verdict::Problem(exit) => Some(exit as u8),
                Verdict::Good | Verdict::Notice => None,
            },
        }
    }
}

/// Returns the findings of these accounts as a line of JSON.
pub(super) fn json(accounts: &[&str], findings: &[Vec<Finding>]) -> Result<String> {
    let accounts = accounts.iter().zip(findings).map(|(account, findings)| SubjectJson {
        account,
        verdict: word(worst(findings)),
        findings: findings.iter().map(FindingJson::new).collect(),
    });
    Ok(format!("{}\n", serde_json::to_string(&CheckJson { accounts: accounts.collect() })?))
}

/// Returns the worst verdict of some findings.
pub(super) fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good)
}

/// The word by which scripts know a verdict.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Notice => "notice",
        Verdict::Problem(_) => "problem",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::language::in_both;

    const LINES: TextStyle = TextStyle {
        language: Language::English,
        has_colours: false,
        only_problems: false,
        width: None,
    };

    fn unreachable_as(what: &str) -> Finding {
        Finding {
            about: "host",
            verdict: Verdict::Problem(Exit::Unreachable),
            what: what.to_owned(),
            remedy: Some(["See the proxy.", "请检查代理。"].map(str::to_owned)),
        }
    }

    fn unreachable() -> Finding {
        unreachable_as("no answer")
    }

    /// Reports these findings, in this order, and returns what was printed at each step.
    fn printed(
        style: TextStyle,
        accounts: &[&str],
        steps: &[(usize, Option<Finding>)],
    ) -> Vec<String> {
        let printed = Mutex::new(vec![String::new()]);
        let print = |text: &str| {
            printed.lock().unwrap().last_mut().unwrap().push_str(text);
            Ok(())
        };
        let report = Report::new(accounts, Some(style), &print);
        for (account, finding) in steps {
            match finding {
                Some(Finding { about, verdict, what, remedy }) => {
                    let (what, remedy) = (what.clone(), remedy.clone());
                    report.add(*account, Finding { about, verdict: *verdict, what, remedy });
                }
                None => report.complete(*account),
            }
            printed.lock().unwrap().push(String::new());
        }
        report.finish().unwrap();
        printed.into_inner().unwrap()
    }

    #[test]
    fn a_finding_is_printed_at_once_and_those_of_the_next_account_follow_in_order() {
        let steps = [
            (0, Some(Finding::named("config", "line 1".to_owned()))),
            (1, Some(Finding::named("config", "line 9".to_owned()))),
            (0, Some(Finding::named("lock", "free".to_owned()))),
            (0, None),
            (1, None),
        ];
        let expected = [
            "✓ crm   config       line 1\n",
            "",
            "✓ crm   lock         free\n",
            "✓ shop  config       line 9\n",
            "",
            "No problem in 2 accounts.\n",
        ];
        assert_eq!(printed(LINES, &["crm", "shop"], &steps), expected);
    }

    #[test]
    fn a_cause_that_accounts_share_is_told_once_and_counts_once() {
        let steps = [
            (0, Some(unreachable())),
            (1, Some(unreachable())),
            (1, Some(Finding { about: "lock", remedy: None, ..unreachable_as("no") })),
            (0, None),
            (1, None),
            (2, None),
        ];
        let text = printed(LINES, &["crm", "shop", "mini"], &steps).concat();
        let expected = "✗ crm   host         no answer. See the proxy.\n\
                        ✗ shop  host         the same as crm\n\
                        ✗ shop  lock         no\n\
                        2 problems in 3 accounts: crm, shop.\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_terminal_gets_lines_that_fit_it_under_the_name_of_the_account() {
        let what = "no answer from api.weixin.qq.com (203.0.113.7:443): the connection timed out after 5 s";
        let finding = || unreachable_as(what);
        let steps = [(0, Some(finding())), (0, None), (1, None)];
        for width in [40, 80] {
            let style = TextStyle { language: Language::Both, width: Some(width), ..LINES };
            let text = printed(style, &["crm", "shop"], &steps).concat();
            assert!(text.starts_with("crm\n  ✗ host         no answer"), "{text}");
            assert!(
                text.contains(
                    "\n                 → See the proxy.\n                 → 请检查代理。\n"
                ),
                "{text}"
            );
            let findings = text.split("\n\n").next().unwrap();
            let widest = findings.lines().map(columns).max().unwrap();
            assert!(widest <= width, "{text}");
        }
    }

    #[test]
    fn on_a_terminal_each_language_has_lines_of_its_own() {
        let what = in_both("WeChat accepts it", "微信接受");
        let findings = [
            Finding::named("credentials", what),
            Finding {
                about: "clock",
                verdict: Verdict::Notice,
                what: in_both("it is slow", "比对方慢"),
                remedy: Some(["Run NTP.", "请启用 NTP。"].map(str::to_owned)),
            },
        ];
        let mut steps: Vec<_> = findings.into_iter().map(|it| (0, Some(it))).collect();
        steps.push((0, None));
        let style = TextStyle { language: Language::Both, width: Some(80), ..LINES };
        let text = printed(style, &["crm"], &steps).concat();
        let expected = "✓ credentials  WeChat accepts it\n               微信接受\n\
                        ! clock        it is slow\n               → Run NTP.\n               比对方慢\n               → 请启用 NTP。\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn quietly_nothing_is_printed_where_all_is_well() {
        let style = TextStyle { only_problems: true, ..LINES };
        let steps = [(0, Some(Finding::named("lock", "free".to_owned()))), (0, None)];
        assert_eq!(printed(style, &["crm"], &steps).concat(), "");
        let steps = [
            (0, Some(Finding::named("lock", "free".to_owned()))),
            (0, Some(unreachable())),
            (0, None),
        ];
        let text = printed(style, &["crm"], &steps).concat();
        assert_eq!(
            text,
            "✗ crm  host         no answer. See the proxy.\n1 problem in 1 account: crm.\n"
        );
    }

    #[test]
    fn the_last_line_is_in_the_readers_language() {
        let steps = [(0, Some(unreachable())), (0, None)];
        let style = TextStyle { language: Language::Chinese, ..LINES };
        let text = printed(style, &["crm", "shop"], &steps).concat();
        assert!(text.ends_with("2 个账号中发现 1 个问题：crm。\n"), "{text}");
    }
}
