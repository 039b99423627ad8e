//! The library: found when the backend is made, which looks at file names only; loaded when the first model needs it.
//!
//! A process has one library and one environment of it, whatever backends there are.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::{CStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_core::guarded;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::sys::OrtApiBase;
use parking_lot::Mutex;

use crate::places::{Place, libraries, usual};

/// Which library to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OnnxRuntimeConfig {
    /// The library's file. `None`: `ORT_DYLIB_PATH`, and where that is not set, the usual places: the folders of the
    /// system's loader, the folder of this program, and what pip installed into Python's folders.
    pub library: Option<PathBuf>,
}

/// Whether models can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Availability {
    /// The library is loaded.
    Loaded {
        /// Its file.
        library: PathBuf,
        /// Its version, such as `1.31.1`.
        version: String,
        /// Names of the execution providers that were built into it.
        providers: Vec<String>,
    },
    /// A library was found. It will be loaded, and its version checked, when a model first needs it.
    Found {
        /// Its file.
        library: PathBuf,
    },
    /// There is none that can be used; the text says why and what to do.
    Absent(String),
}

/// One line, without the engine's name.
impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded { library, version, providers } => {
                write!(f, "version {version} from {} ({})", library.display(), providers.join(", "))
            }
            Self::Found { library } => write!(f, "{}, to be loaded when a model needs it", library.display()),
            Self::Absent(why) => f.write_str(why),
        }
    }
}

/// The oldest library whose interface is enough: 1.18 of May 2024.
const OLDEST: u32 = ort::MINOR_VERSION;
const ADVICE: &str = "set ORT_DYLIB_PATH to the file of the library, or `pip install onnxruntime`";

/// What a search found.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// The one file that was asked for.
    Wanted(PathBuf),
    /// Files in the usual places, the best first; never empty.
    Some(Vec<PathBuf>),
    /// Nothing; in words.
    Nothing(String),
}

/// A loaded library.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) file: PathBuf,
    pub(crate) version: String,
    pub(crate) providers: Vec<String>,
    pub(crate) environment: Environment,
}

/// The library of this process.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

/// Looks for a library. Reads names of files only.
pub(crate) fn search(config: &OnnxRuntimeConfig) -> Found {
    search_with(config, &|name| variable(name))
}

/// The one place of this crate that reads the environment.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn search_with(config: &OnnxRuntimeConfig, environment: &dyn Fn(&str) -> Option<OsString>) -> Found {
    let asked = environment("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(file) = config.library.clone().or(asked) {
        return Found::Wanted(file);
    }
    let places = usual(environment);
    let files: Vec<PathBuf> = places.iter().flat_map(|place| libraries(&place.path)).collect();
    if files.is_empty() { Found::Nothing(nothing(&places)) } else { Found::Some(files) }
}

fn nothing(places: &[Place]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for place in places {
        if !words.contains(&place.named_by) {
            words.push(place.named_by);
        }
    }
    format!("no library found ({DLL_PREFIX}onnxruntime{DLL_SUFFIX}); looked in: {}; {ADVICE}", words.join(", "))
}

impl Found {
    /// What is known without loading anything.
    pub(crate) fn availability(&self) -> Availability {
        if let Some(library) = &*LOADED.lock() {
            return library.availability();
        }
        match self {
            Self::Wanted(file) => match regular(file) {
                Ok(()) => Availability::Found { library: file.clone() },
                Err(why) => Availability::Absent(why),
            },
            Self::Some(files) => Availability::Found { library: files[0].clone() },
            Self::Nothing(why) => Availability::Absent(why.clone()),
        }
    }

    /// The library, loaded now if it is not yet. Of several the first that is new enough is taken.
    ///
    /// # Errors
    /// Why there is none, in words for an operator.
    pub(crate) fn load(&self) -> Result<Arc<Library>, String> {
        let mut loaded = LOADED.lock();
        if let Some(library) = &*loaded {
            return match self {
                Self::Wanted(file) if !is_same(file, &library.file) => Err(format!(
                    "{} cannot be loaded beside {}, which this process uses already",
                    file.display(),
                    library.file.display()
                )),
                Self::Wanted(_) | Self::Some(_) | Self::Nothing(_) => Ok(Arc::clone(library)),
            };
        }
        let library = match self {
            Self::Wanted(file) => open(file)?,
            Self::Nothing(why) => return Err(why.clone()),
            Self::Some(files) => {
                let mut reasons = Vec::new();
                let opened = files.iter().find_map(|file| open(file).map_err(|why| reasons.push(why)).ok());
                opened.ok_or_else(|| format!("no library that can be used: {}; {ADVICE}", reasons.join("; ")))?
            }
        };
        tracing::info!(version = library.version, library = %library.file.display(), "onnxruntime is loaded");
        let library = Arc::new(library);
        *loaded = Some(Arc::clone(&library));
        Ok(library)
    }
}

impl Library {
    fn availability(&self) -> Availability {
        let (library, version, providers) = (self.file.clone(), self.version.clone(), self.providers.clone());
        Availability::Loaded { library, version, providers }
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn regular(file: &Path) -> Result<(), String> {
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(format!("{} is not a regular file; {ADVICE}", file.display())),
        Err(error) => Err(format!("{}: {}; {ADVICE}", file.display(), error.kind())),
    }
}

/// Checks `file` and hands it to `ort`, which would panic about some of what is wrong with it.
fn open(file: &Path) -> Result<Library, String> {
    let shown = file.display();
    regular(file)?;
    // An absolute path: a bare name would be looked up elsewhere.
    let file = std::path::absolute(file).map_err(|error| format!("{shown}: {}", error.kind()))?;
    let version = version(&file)?;
    let environment = guarded(|| {
        let builder = ort::init_from(&file).map_err(|error| error.to_string())?;
        let builder = builder.with_name("millrace").with_telemetry(false).with_logger(Arc::new(log));
        let environment = builder.build().map_err(|error| error.to_string())?;
        environment.set_log_level(LogLevel::Warning);
        Ok::<_, String>(environment)
    });
    let environment = environment.map_err(|panicked| panicked.to_string()).and_then(|built| built);
    let environment = environment.map_err(|why| format!("{shown}: it does not start: {why}"))?;
    let providers = crate::raw::providers().map_err(|error| format!("{shown}: {error}"))?;
    Ok(Library { file, version, providers, environment })
}

/// What the engine says about a file or a run comes back as an error as well; its warnings are about constants that
/// nobody uses and the like.
fn log(level: LogLevel, _category: &str, _id: &str, _place: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", "{message}"),
        LogLevel::Error | LogLevel::Warning => tracing::debug!(target: "onnxruntime", "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", "{message}"),
    }
}

/// The version of the library in `file`, where it is one and new enough.
#[expect(unsafe_code, reason = "only the library itself can say its version")]
fn version(file: &Path) -> Result<String, String> {
    let shown = file.display();
    // SAFETY: loading runs the constructors of a library that the operator named or installed, as linking it would.
    let library = unsafe { libloading::Library::new(file) };
    let library = library.map_err(|error| format!("{shown} cannot be loaded: {error}"))?;
    // SAFETY: whatever exports this name has it with this type; it is the one entry of every version.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase") };
    let base = base.map_err(|_| format!("{shown} is another library: it does not export OrtGetApiBase; {ADVICE}"))?;
    // SAFETY: it takes nothing and gives a static table, or null.
    let base = unsafe { base().as_ref() }.ok_or_else(|| format!("{shown} gives no interface"))?;
    // SAFETY: both functions are of every version's table; the text is static and ends in zero.
    let text = unsafe { CStr::from_ptr((base.GetVersionString)()) }.to_string_lossy().into_owned();
    let mut numbers = text.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let is_old = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (1, OLDEST);
    // SAFETY: asking for an interface changes nothing; null says that there is none.
    let has_interface = !is_old && unsafe { !(base.GetApi)(OLDEST).is_null() };
    if !has_interface {
        return Err(format!("{shown} is version {text}; expected 1.{OLDEST} or newer"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
