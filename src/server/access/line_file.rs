//! A file that says who may ask, line by line. It is read only if nobody but its owner can have written it; whoever may
//! read it is not asked. Knows nothing of what its lines mean.

use std::path::Path;

use crate::error::Exit;
use crate::os::read;

/// The largest file that is read: a hundred thousand networks.
const MAX_SIZE: u64 = 4 * 1024 * 1024; // bytes

/// How many faulty lines are told one by one: more than a person mends before looking again.
const MAX_TOLD: usize = 100;

/// What stands in such a file.
pub(crate) struct LineFile {
    /// What people call it, with its path.
    name: String,
    text: String,
}

impl LineFile {
    /// Reads the file at `path`, which is a `what`.
    pub(crate) fn read(what: &str, path: &Path) -> anyhow::Result<LineFile> {
        let name = format!("{what} {}", path.display());
        let bytes =
            read::read_guarded(&name, path, MAX_SIZE).map_err(|fault| Exit::Usage.error(fault))?;
        // A comment may be in whatever encoding an editor has; what is not UTF-8 elsewhere is no name and no address.
        Ok(LineFile { name, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// The lines that say something, without comments, and their numbers.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        // Windows' Notepad begins a file so.
        let text = self.text.trim_start_matches('\u{feff}');
        let lines = text.lines().enumerate().map(|(index, line)| {
            let said = line.split_once('#').map_or(line, |(said, _)| said);
            (index + 1, said.trim_ascii())
        });
        lines.filter(|(_, said)| !said.is_empty())
    }

    /// One error that tells of all faults, each with the number of its line.
    pub(crate) fn faulty(&self, faults: &[(usize, String)]) -> anyhow::Error {
        let told: Vec<String> = faults
            .iter()
            .take(MAX_TOLD)
            .map(|(line, fault)| format!("line {line}: {fault}"))
            .collect();
        let more = match faults.len().saturating_sub(MAX_TOLD) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Exit::Usage.error(format!("{}: {}{more}", self.name, told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    /// A file with these bytes and this mode, for as long as the directory is there.
    fn file(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    fn refusal(path: &Path) -> String {
        let err = LineFile::read("keys file", path).map(|_| ()).unwrap_err();
        assert_eq!(Exit::from_error(&err), Exit::Usage);
        err.to_string()
    }

    #[test]
    fn lines_are_counted_as_editors_do_and_comments_say_nothing() {
        let bytes =
            b"\xef\xbb\xbf# who\r\n\r\none # \xd6\xd0\xce\xc4\n  \t \n\ttwo  words\t#\n#\nlast";
        let (_dir, path) = file(bytes, 0o644);
        let roster = LineFile::read("keys file", &path).unwrap();
        let lines: Vec<_> = roster.lines().collect();
        assert_eq!(lines, [(3, "one"), (5, "two  words"), (7, "last")]);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_by_name_and_mode() {
        for mode in [0o620, 0o602, 0o666, 0o664] {
            let (_dir, path) = file(b"", mode);
            let expected = format!(
                "keys file {} can be written by others: mode {mode:04o}; run chmod go-w on it",
                path.display()
            );
            assert_eq!(refusal(&path), expected);
        }
        for mode in [0o600, 0o644, 0o440] {
            let (_dir, path) = file(b"one", mode);
            assert!(LineFile::read("keys file", &path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn only_a_plain_file_of_some_size_is_read() {
        let (dir, path) = file(&vec![b'\n'; MAX_SIZE as usize], 0o600);
        assert!(LineFile::read("keys file", &path).is_ok());
        fs::write(&path, vec![b'\n'; MAX_SIZE as usize + 1]).unwrap();
        assert!(refusal(&path).ends_with("is larger than 4 MiB"));
        assert!(refusal(dir.path()).contains("is not a plain file"));
        assert!(refusal(Path::new("/dev/null")).contains("is not a plain file"));
        assert!(refusal(&dir.path().join("nothing")).contains("No such file"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert!(refusal(&pipe).contains("is not a plain file"));
    }

    #[test]
    fn of_very_many_faults_the_first_hundred_are_told_and_the_rest_is_counted() {
        let (_dir, path) = file(b"", 0o600);
        let roster = LineFile::read("allow file", &path).unwrap();
        let faults: Vec<_> = (1..=102).map(|line| (line, "wrong".to_owned())).collect();
        let text = roster.faulty(&faults).to_string();
        assert!(text.contains("roster: line 1: wrong; line 2: wrong; "), "{text}");
        assert!(text.ends_with("line 100: wrong; and 2 more"), "{text}");
    }
}
