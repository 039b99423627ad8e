//! From a path below `/v2` to what it asks for. Paths match as a whole and with regard to case; names are
//! percent-decoded after matching, so an encoded slash is part of a name and never a separator.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::route::{parts, segment};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models`
    Models,
    /// `/v2/models/{m}[/versions/{v}]`
    Model(Target<'a>),
    /// `…/ready`
    ModelReady(Target<'a>),
    /// `…/config`
    Config(Target<'a>),
    /// `…/infer`
    Infer(Target<'a>),
    /// `…/generate` and `…/generate_stream`
    Generate(Target<'a>),
    /// `/v2/models/stats`, or `…/stats` of a model
    Statistics(Option<Target<'a>>),
    /// `/v2/repository/index`
    Index,
    /// `/v2/repository/models/{m}/load`
    Load(Cow<'a, str>),
    /// `/v2/repository/models/{m}/unload`
    Unload(Cow<'a, str>),
    /// One of these three with a repository's name.
    Repository(Cow<'a, str>),
    /// `/v2/trace/setting`, or that of a model
    Trace(Option<Cow<'a, str>>),
    /// `/v2/logging`
    Logging,
    /// Below `/v2/systemsharedmemory` or `/v2/cudasharedmemory`
    SharedMemory(Regions, Option<Cow<'a, str>>),
    /// None of these.
    Unknown,
}

/// What is wanted with regions of shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Regions {
    Status,
    Register,
    Unregister,
}

/// The model that a path names, and its version where it has one: digits, any number of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) version: &'a str,
}

/// Which methods a route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Methods {
    Read,
    Post,
    Both,
}

impl Route<'_> {
    /// The methods that the route has.
    pub(super) fn methods(&self) -> Methods {
        match self {
            Self::Server
            | Self::Live
            | Self::Ready
            | Self::Models
            | Self::Model(_)
            | Self::ModelReady(_)
            | Self::Config(_)
            | Self::Statistics(_)
            | Self::SharedMemory(Regions::Status, _) => Methods::Read,
            Self::Infer(_)
            | Self::Generate(_)
            | Self::Index
            | Self::Load(_)
            | Self::Unload(_)
            | Self::Repository(_)
            | Self::SharedMemory(Regions::Register | Regions::Unregister, _) => Methods::Post,
            Self::Trace(_) | Self::Logging | Self::Unknown => Methods::Both,
        }
    }

    /// Whether the route is one for operators.
    pub(super) fn is_repository(&self) -> bool {
        matches!(self, Self::Index | Self::Load(_) | Self::Unload(_) | Self::Repository(_))
    }
}

/// The route of the path after `/v2`, which begins with a slash unless it is empty.
pub(super) fn route(rest: &str) -> Route<'_> {
    find(rest).unwrap_or(Route::Unknown)
}

fn find(rest: &str) -> Option<Route<'_>> {
    let Some(rest) = rest.strip_prefix('/').filter(|rest| !rest.is_empty()) else { return Some(Route::Server) };
    // The longest path has six parts, so a seventh says that this is none of ours.
    let parts: SmallVec<[&str; 7]> = parts(rest).take(7).collect();
    Some(match parts.as_slice() {
        ["health", "live"] => Route::Live,
        ["health", "ready"] => Route::Ready,
        ["models"] => Route::Models,
        ["models", "stats"] => Route::Statistics(None),
        ["models", model, "trace", "setting"] => Route::Trace(Some(segment(model)?)),
        [_, _, "versions", "", ..] => return None,
        ["models", model, "versions", version] => Route::Model(target(model, version)?),
        ["models", model, "versions", version, verb] => of_model(target(model, version)?, verb)?,
        ["models", model] => Route::Model(target(model, "")?),
        ["models", model, verb] => of_model(target(model, "")?, verb)?,
        ["repository", "index"] => Route::Index,
        ["repository", "models", model, "load"] => Route::Load(segment(model)?),
        ["repository", "models", model, "unload"] => Route::Unload(segment(model)?),
        ["repository", other, "index"] | ["repository", other, "models", _, "load" | "unload"] => {
            Route::Repository(segment(other)?)
        }
        ["trace", "setting"] => Route::Trace(None),
        ["logging"] => Route::Logging,
        ["systemsharedmemory" | "cudasharedmemory", verb] => Route::SharedMemory(regions(verb)?, None),
        ["systemsharedmemory" | "cudasharedmemory", "region", name, verb] => {
            Route::SharedMemory(regions(verb)?, Some(segment(name)?))
        }
        _ => return None,
    })
}

fn target<'a>(name: &'a str, version: &'a str) -> Option<Target<'a>> {
    let is_version = version.bytes().all(|byte| byte.is_ascii_digit());
    is_version.then_some(Target { name: segment(name)?, version })
}

fn of_model<'a>(target: Target<'a>, verb: &str) -> Option<Route<'a>> {
    Some(match verb {
        "ready" => Route::ModelReady(target),
        "config" => Route::Config(target),
        "infer" => Route::Infer(target),
        "generate" | "generate_stream" => Route::Generate(target),
        "stats" => Route::Statistics(Some(target)),
        _ => return None,
    })
}

fn regions(verb: &str) -> Option<Regions> {
    match verb {
        "status" => Some(Regions::Status),
        "register" => Some(Regions::Register),
        "unregister" => Some(Regions::Unregister),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Regions, Route, Target, route};

    fn target<'a>(name: &'a str, version: &'a str) -> Target<'a> {
        Target { name: name.into(), version }
    }

    #[test]
    fn every_path_of_the_protocol_has_its_route() {
        let cases = [
            ("", Route::Server),
            ("/", Route::Server),
            ("/health/live", Route::Live),
            ("/health/ready", Route::Ready),
            ("/models", Route::Models),
            ("/models/m", Route::Model(target("m", ""))),
            ("/models/m/versions/12", Route::Model(target("m", "12"))),
            ("/models/m/ready", Route::ModelReady(target("m", ""))),
            ("/models/m/versions/1/ready", Route::ModelReady(target("m", "1"))),
            ("/models/m/config", Route::Config(target("m", ""))),
            ("/models/m/versions/1/config", Route::Config(target("m", "1"))),
            ("/models/m/infer", Route::Infer(target("m", ""))),
            ("/models/m/versions/01/infer", Route::Infer(target("m", "01"))),
            ("/models/m/generate", Route::Generate(target("m", ""))),
            ("/models/m/versions/1/generate_stream", Route::Generate(target("m", "1"))),
            ("/models/stats", Route::Statistics(None)),
            ("/models/m/stats", Route::Statistics(Some(target("m", "")))),
            ("/models/m/versions/1/stats", Route::Statistics(Some(target("m", "1")))),
            ("/repository/index", Route::Index),
            ("/repository/models/m/load", Route::Load("m".into())),
            ("/repository/models/m/unload", Route::Unload("m".into())),
            ("/repository/other/index", Route::Repository("other".into())),
            ("/repository/other/models/m/load", Route::Repository("other".into())),
            ("/trace/setting", Route::Trace(None)),
            ("/models/m/trace/setting", Route::Trace(Some("m".into()))),
            ("/logging", Route::Logging),
            ("/systemsharedmemory/status", Route::SharedMemory(Regions::Status, None)),
            ("/cudasharedmemory/region/r/status", Route::SharedMemory(Regions::Status, Some("r".into()))),
            ("/systemsharedmemory/region/r/register", Route::SharedMemory(Regions::Register, Some("r".into()))),
            ("/cudasharedmemory/unregister", Route::SharedMemory(Regions::Unregister, None)),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn anything_else_is_unknown() {
        let paths = [
            "/models/m/versions/abc",
            "/models/m/versions/-1/infer",
            "/models/m/versions/1.0",
            "/models/m/versions/%31",
            "/models/m/versions/1/infer/more",
            "/models//infer",
            "/models/m/versions/",
            "/models/m/versions//infer",
            "/models/m/nonsense",
            "/models/",
            "/Models/m",
            "/health",
            "/repository",
            "/repository/models/m",
            "/systemsharedmemory/region/r",
            "/a/b/c/d/e/f/g/h",
        ];
        for path in paths {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_a_name() {
        assert_eq!(route("/models/a%2fb/infer"), Route::Infer(target("a/b", "")));
        assert_eq!(route("/models/%2e%2e"), Route::Model(target("..", "")));
        assert_eq!(route("/models/a%00/ready"), Route::ModelReady(target("a\0", "")));
    }
}
