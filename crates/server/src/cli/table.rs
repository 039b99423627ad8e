//! What is printed about loaded models: a table, and one `curl` line per model.

use std::fmt::Write as _;
use std::path::PathBuf;

use millrace_core::{Code, ModelStatus, Quoted, SERVING_DEFAULT, Signature, VersionFailure, VersionStatus};
use millrace_registry::ModelSet;

use super::sample::{Sample, sample_of};
use crate::net::Address;

const HEAD: [&str; 7] = ["MODEL", "VERSION", "BACKEND", "STATE", "INPUTS → OUTPUTS", "LOAD", "MEMORY"];

/// One line per version, and one below each failed version with the reason.
pub(super) fn table_with_reasons(models: &[ModelStatus]) -> String {
    render(models, true)
}

/// One line per version.
pub(super) fn table(models: &[ModelStatus]) -> String {
    render(models, false)
}

fn render(models: &[ModelStatus], with_reasons: bool) -> String {
    let mut rows: Vec<([String; 7], Option<String>)> = Vec::new();
    for model in models {
        for version in &model.versions {
            rows.push((row(model, version), version.failure.as_ref().map(|failure| failure.message.clone())));
        }
        if model.versions.is_empty() {
            let cells = [
                model.name.to_string(),
                "-".into(),
                "-".into(),
                "NO VERSION".into(),
                "-".into(),
                "-".into(),
                "-".into(),
            ];
            rows.push((
                cells,
                Some("no version that is wanted lies in its folder: see `versions` in its model.toml".to_owned()),
            ));
        }
    }
    let mut widths = HEAD.map(str::len);
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    line(&mut text, &widths, &HEAD.map(str::to_owned));
    for (cells, failure) in &rows {
        line(&mut text, &widths, cells);
        if let Some(failure) = failure.as_ref().filter(|_| with_reasons) {
            let _ = writeln!(text, "    {failure}");
        }
    }
    text
}

fn row(model: &ModelStatus, version: &VersionStatus) -> [String; 7] {
    let mut number = version.version.to_string();
    let aliases =
        model.aliases.iter().filter(|(_, target)| **target == version.version).map(|(alias, _)| alias.as_str());
    let marks: Vec<&str> =
        (model.default_version == Some(version.version)).then_some("default").into_iter().chain(aliases).collect();
    if !marks.is_empty() {
        let _ = write!(number, " ({})", marks.join(", "));
    }
    let dash = || "-".to_owned();
    [
        model.name.to_string(),
        number,
        version.backend.as_deref().map_or_else(dash, str::to_owned),
        if version.failure.is_some() { "FAILED".to_owned() } else { version.state.name().to_owned() },
        default_signature(version).map_or_else(dash, arrow),
        version.load_time.map_or_else(dash, |time| format!("{:.1} ms", time.as_secs_f64() * 1e3)),
        if version.memory_bytes == 0 { dash() } else { bytes(version.memory_bytes) },
    ]
}

/// Rows of cells, each column as wide as its widest cell.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let most = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..most).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    rows.iter().for_each(|row| line(&mut text, &widths, row));
    text
}

fn line(text: &mut String, widths: &[usize], cells: &[String]) {
    let mut line = String::new();
    for (width, cell) in widths.iter().zip(cells) {
        let _ = write!(line, "{cell}{:pad$}  ", "", pad = width - cell.chars().count());
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn default_signature(version: &VersionStatus) -> Option<&Signature> {
    version.signatures.as_ref()?.find(SERVING_DEFAULT).map(|(_, signature)| signature)
}

/// `x FP32[N,4] → y FP32[N]`.
pub(super) fn arrow(signature: &Signature) -> String {
    let list =
        |specs: &[millrace_core::TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} → {}", list(signature.inputs()), list(signature.outputs()))
}

/// `12.3 KiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut whole = count;
    let mut rest = 0;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if whole < 1024 {
            return if unit == "B" { format!("{whole} B") } else { format!("{whole}.{} {unit}", rest * 10 / 1024) };
        }
        (whole, rest) = (whole / 1024, whole % 1024);
    }
    format!("{whole} TiB")
}

/// One ready-to-paste line for each model that serves.
pub(super) fn curl_lines(models: &[ModelStatus], address: &Address, set: &ModelSet) -> String {
    let mut text = String::new();
    let curl = curl(address);
    for model in models {
        let version = model.versions.iter().find(|version| Some(version.version) == model.default_version);
        let sample = |version: &VersionStatus| sample_of(version.signatures.as_ref()?, version.backend.as_deref());
        let Some(sample) = version.and_then(sample) else { continue };
        let url = format!("{curl}/v1/models/{}", model.name);
        let line = match &sample {
            Sample::Body(body, _) if sample.is_short() => format!("{url}:predict -d {}", shell_quoted(body)),
            Sample::Body(..) => match folder(set, model) {
                Some(folder) => {
                    let folder = shell_quoted(&folder.to_string_lossy());
                    format!("millrace inspect {folder} --sample | {url}:predict -d @-")
                }
                None => format!("{url}/metadata  # a request is too large to show"),
            },
            // No apostrophes: a shell that takes no comments on its command line would wait for a second one.
            Sample::NoJson(dtype) => {
                format!("{url}/metadata  # the JSON of TensorFlow Serving cannot carry {dtype}: no :predict")
            }
            Sample::NoSize => format!("{url}/metadata  # a request is too large to show"),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Where the versions of `model` lie.
fn folder(set: &ModelSet, model: &ModelStatus) -> Option<PathBuf> {
    match set {
        ModelSet::Repository(path) => Some(path.join(model.name.as_str())),
        ModelSet::Listed(models) => {
            models.iter().find(|listed| listed.name == model.name).map(|listed| listed.base_path.clone())
        }
    }
}

/// The command by which a client on this machine reaches the server, up to the path.
fn curl(address: &Address) -> String {
    match address {
        Address::Tcp(address) if address.ip().is_unspecified() => format!("curl http://localhost:{}", address.port()),
        Address::Tcp(address) => format!("curl http://{address}"),
        Address::Unix(path) => {
            format!("curl --unix-socket {} http://localhost", shell_quoted(&path.to_string_lossy()))
        }
    }
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Everything that is wrong and what to do about it, one line each; empty where all is well.
pub(super) fn problems(models: &[ModelStatus]) -> Vec<String> {
    let mut problems = Vec::new();
    for model in models {
        for version in &model.versions {
            if let Some(failure) = &version.failure {
                let hint = remedy(failure).map(|hint| format!(" → {hint}")).unwrap_or_default();
                problems.push(format!("{} version {}: {}{hint}", model.name, version.version, failure.message));
            }
        }
        if !model.is_ready() && model.versions.iter().all(|version| version.failure.is_none()) {
            let hint = "look at `versions` and `aliases` in its model.toml";
            problems.push(format!("{}: no version can serve → {hint}", Quoted(model.name.as_str())));
        }
    }
    problems
}

/// What an operator can do, where the failure does not say it.
fn remedy(failure: &VersionFailure) -> Option<&'static str> {
    match failure.code {
        // The text names the place and what is expected there.
        _ if ["model.toml", "option ", "unknown option"].iter().any(|start| failure.message.starts_with(start)) => None,
        Code::FailedPrecondition => Some("export the model again, or copy it again if the copy was cut off"),
        Code::NotFound => Some("copy all of the model's files into its folder, and the models that a pipeline asks"),
        Code::Unimplemented => {
            Some("save it in a form that an engine has: docs/engines.md lists operators, types and architectures")
        }
        Code::ResourceExhausted => Some("make the model smaller; docs/configuration.md has the limits of [registry]"),
        Code::Internal => Some("this is a defect of the engine: please report it, with the model if you can"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, curl, shell_quoted};

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }

    #[test]
    fn a_printed_line_can_be_pasted() {
        assert_eq!(shell_quoted("{\"it's\": 1}"), r#"'{"it'\''s": 1}'"#);
        for (address, expected) in [
            ("0.0.0.0:80", "curl http://localhost:80"),
            ("[::]:80", "curl http://localhost:80"),
            ("127.0.0.1:80", "curl http://127.0.0.1:80"),
            ("[2001:db8::1]:80", "curl http://[2001:db8::1]:80"),
            ("unix:/run/a b", "curl --unix-socket '/run/a b' http://localhost"),
        ] {
            assert_eq!(curl(&address.parse().unwrap()), expected);
        }
    }
}
