//! Which tunnel a command means: `NAME|FILE`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::control::InstanceName;
use crate::failure::{ExitCode, Failure};

/// A tunnel by its name and its configuration.
///
/// What contains `/` or ends in `.toml` is a file, whose name without the ending names the
/// tunnel; anything else is a name, whose file is `/etc/vpn/NAME.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: InstanceName,
    pub(super) file: PathBuf,
}

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(ExitCode::Usage, message);
        if !text.contains('/') && !text.ends_with(ENDING) {
            let name: InstanceName = text.parse().map_err(|error| usage(format!("{error}")))?;
            let file = Path::new(FOLDER).join(format!("{name}{ENDING}"));
            return Ok(Self { name, file });
        }
        let file = PathBuf::from(text);
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let name = stem
            .ok_or_else(|| usage(format!("{text:?} is no file")))?
            .parse()
            .map_err(|error| usage(format!("the file names the tunnel, and {error}")))?;
        Ok(Self { name, file })
    }
}

const FOLDER: &str = "/etc/vpn";
const ENDING: &str = ".toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_names_from_files() {
        for (text, name, file) in [
            ("client", "client", "/etc/vpn/client.toml"),
            ("a.b", "a.b", "/etc/vpn/a.b.toml"),
            ("home.toml", "home", "home.toml"),
            ("./home", "home", "./home"),
            ("/x/y.conf", "y", "/x/y.conf"),
            ("/x/a.b.toml", "a.b", "/x/a.b.toml"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.name.as_str(), target.file.as_path()), (name, Path::new(file)));
        }
    }

    #[test]
    fn refuses_what_cannot_name_a_tunnel() {
        for text in ["", "..", "-x", "a b", "/", "/x/..", "dir/a b.toml", ".toml"] {
            let failure = text.parse::<Target>().unwrap_err();
            assert_eq!(failure.class, ExitCode::Usage, "{text}");
        }
    }
}
