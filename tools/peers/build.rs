//! Links LevelDB, and says what to do where it is missing.

use std::path::Path;
use std::process::{Command, Stdio};

/// Where to look for the library besides the places of the linker.
const DIR_VARIABLE: &str = "LEVELDB_LIB_DIR";

fn main() {
    println!("cargo::rerun-if-env-changed={DIR_VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PEER_LEVELDB").is_none() {
        return;
    }
    let dir = std::env::var(DIR_VARIABLE).ok();
    if !links(dir.as_deref()) {
        println!(
            "cargo::error=libleveldb was not found, which the feature peer-leveldb needs. On \
             Debian and its kin: apt-get install libleveldb-dev. Elsewhere: set {DIR_VARIABLE} to \
             the directory that holds it, or leave the feature out."
        );
        return;
    }
    if let Some(dir) = dir {
        println!("cargo::rustc-link-search=native={dir}");
    }
    println!("cargo::rustc-link-lib=dylib=leveldb");
}

/// Whether the linker finds the library: a program that calls it is linked and thrown away.
fn links(dir: Option<&str>) -> bool {
    let Some(out) = std::env::var_os("OUT_DIR") else {
        return false;
    };
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-"]);
    if let Some(dir) = dir {
        command.arg(format!("-L{dir}"));
    }
    command
        .arg("-lleveldb")
        .arg("-o")
        .arg(Path::new(&out).join("probe"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    let program =
        b"int leveldb_major_version(void); int main(void) { return leveldb_major_version(); }\n";
    let written = child
        .stdin
        .take()
        .is_some_and(|mut input| std::io::Write::write_all(&mut input, program).is_ok());
    written && child.wait().is_ok_and(|status| status.success())
}
