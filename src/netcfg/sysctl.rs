//! Kernel parameters under /proc/sys.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The networking parameters of one IP version's interfaces: `all`, `default` and one folder an interface.
pub(super) const IPV4_CONF: &str = "/proc/sys/net/ipv4/conf";
pub(super) const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// Reads a parameter; `None` if this kernel does not have it.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a parameter; an interface or parameter that is gone is left alone, which `Ok(false)` says.
pub(super) fn write(path: &Path, value: &str) -> Result<bool> {
    // Opened without creating: a missing parameter must be NotFound and not a new file.
    let result = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| {
            format!("cannot set {} to {value}: is /proc/sys read-only here?", path.display())
        }),
    }
}

/// Lists the interfaces that have parameters, without `all` and `default`, sorted.
pub(super) fn interfaces(conf: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(conf) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("cannot list {conf}: {error}"),
    };
    let names = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut names: Vec<_> =
        names.filter(|path| !path.ends_with("all") && !path.ends_with("default")).collect();
    names.sort();
    Ok(names)
}

/// True if some interface but loopback and `own` uses IPv6, or a new one would.
pub(super) fn is_ipv6_enabled(own: &str) -> Result<bool> {
    let mut folders = interfaces(IPV6_CONF)?;
    folders.retain(|folder| !folder.ends_with("lo") && !folder.ends_with(own));
    folders.push(Path::new(IPV6_CONF).join("all"));
    for folder in folders {
        if read(&folder.join("disable_ipv6"))?.as_deref() == Some("0") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_tolerates_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forwarding");
        assert!(!write(&path, "1").unwrap());
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, "0\n").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("0"));
        assert!(write(&path, "1").unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some("1"));
    }
}
