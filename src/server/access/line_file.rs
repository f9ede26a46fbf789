//! Reads a file of access rules, line by line, if only its owner can have written it. Does not know what the lines mean.

use std::path::Path;

use crate::error::Exit;
use crate::language::{Language, in_both};
use crate::message::with_wide_colons;
use crate::os::file::read;

/// The largest file that is read: enough for a hundred thousand networks.
const MAX_SIZE: u64 = 4 * 1024 * 1024; // bytes

/// How many faulty lines an error names, so that it stays readable.
const MAX_FAULTS_NAMED: usize = 100;

/// The contents of such a file.
pub(crate) struct LineFile {
    /// What the file is called in messages, with its path.
    name: String,
    text: String,
}

impl LineFile {
    /// Reads the file at `path`. `what` says in messages which kind of file it is, such as `keys file`.
    ///
    /// Fails if other users can write to the file, or if it is not a regular file. They may read it.
    pub(crate) fn read(what: &str, path: &Path) -> anyhow::Result<LineFile> {
        let name = format!("{what} {}", path.display());
        let chinese =
            name.replacen("keys file", "访问密钥文件", 1).replacen("allow file", "白名单文件", 1);
        let name = in_both(&name, chinese);
        let bytes =
            read::read_guarded(&name, path, MAX_SIZE).map_err(|fault| Exit::Usage.error(fault))?;
        // Comments may be in any encoding. Elsewhere, what is not UTF-8 becomes a character that no rule allows.
        Ok(LineFile { name, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// The lines with their numbers, without comments, and without those that are empty then.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        // Windows Notepad begins a file with a byte order mark.
        let text = self.text.trim_start_matches('\u{feff}');
        let lines = text.lines().enumerate().map(|(index, line)| {
            let content = line.split_once('#').map_or(line, |(content, _)| content);
            (index + 1, content.trim_ascii())
        });
        lines.filter(|(_, content)| !content.is_empty())
    }

    /// Returns one error for all faults, each of which comes with the number of its line.
    pub(crate) fn error(&self, faults: &[(usize, String)]) -> anyhow::Error {
        let named: Vec<String> = faults
            .iter()
            .take(MAX_FAULTS_NAMED)
            .map(|(line, fault)| {
                let line = in_both(format!("line {line}"), format!("第 {line} 行"));
                format!("{line}: {fault}")
            })
            .collect();
        let more = match faults.len().saturating_sub(MAX_FAULTS_NAMED) {
            0 => String::new(),
            more => in_both(format!("; and {more} more"), format!("; 另有 {more} 处")),
        };
        let whole = format!("{}: {}{more}", self.name, named.join("; "));
        // One language after the other, and not line by line.
        let [english, chinese] =
            [Language::English, Language::Chinese].map(|it| it.resolve(&whole).into_owned());
        Exit::Usage.error(in_both(english, with_wide_colons(&chinese)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// Makes a file with these bytes and this mode; it is deleted with the returned directory.
    fn file(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    fn error(path: &Path) -> String {
        let err = LineFile::read("keys file", path).map(|_| ()).unwrap_err();
        assert_eq!(Exit::from_error(&err), Exit::Usage);
        Language::English.resolve(&err.to_string()).into_owned()
    }

    #[test]
    fn lines_keep_their_numbers_and_comments_are_left_out() {
        let bytes =
            b"\xef\xbb\xbf# who\r\n\r\none # \xd6\xd0\xce\xc4\n  \t \n\ttwo  words\t#\n#\nlast";
        let (_dir, path) = file(bytes, 0o644);
        let list = LineFile::read("keys file", &path).unwrap();
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines, [(3, "one"), (5, "two  words"), (7, "last")]);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_with_its_name_and_mode() {
        for mode in [0o620, 0o602, 0o666, 0o664] {
            let (_dir, path) = file(b"", mode);
            let expected = format!(
                "Run chmod go-w {0}: cannot read keys file {0}: it can be written by others: mode {mode:04o}",
                path.display()
            );
            assert_eq!(error(&path), expected);
        }
        for mode in [0o600, 0o644, 0o440] {
            let (_dir, path) = file(b"one", mode);
            assert!(LineFile::read("keys file", &path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn only_a_regular_file_of_limited_size_is_read() {
        let (dir, path) = file(&vec![b'\n'; MAX_SIZE as usize], 0o600);
        assert!(LineFile::read("keys file", &path).is_ok());
        fs::write(&path, vec![b'\n'; MAX_SIZE as usize + 1]).unwrap();
        assert!(error(&path).ends_with("it is larger than 4 MiB"));
        assert!(error(dir.path()).contains("is not a plain file"));
        assert!(error(Path::new("/dev/null")).contains("is not a plain file"));
        assert!(error(&dir.path().join("nothing")).contains("No such file"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert!(error(&pipe).contains("is not a plain file"));
    }

    #[test]
    fn an_error_names_a_hundred_faults_and_counts_the_rest() {
        let (_dir, path) = file(b"", 0o600);
        let list = LineFile::read("allow file", &path).unwrap();
        let faults: Vec<_> = (1..=102).map(|line| (line, "wrong".to_owned())).collect();
        let text = list.error(&faults).to_string();
        let text = Language::English.resolve(&text);
        assert!(text.contains("list: line 1: wrong; line 2: wrong; "), "{text}");
        assert!(text.ends_with("line 100: wrong; and 2 more"), "{text}");
    }
}
