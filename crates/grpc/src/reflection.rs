//! gRPC's reflection protocol, in its two names: which services there are and what their messages look like.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Response;
use millrace_core::{Code, Quoted};
use millrace_proto::FILE_DESCRIPTOR_SET;
use millrace_proto::grpc::reflection::v1::server_reflection_request::MessageRequest;
use millrace_proto::grpc::reflection::v1::server_reflection_response::MessageResponse;
use millrace_proto::grpc::reflection::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::body::GrpcBody;
use crate::call::{Call, RequestBody, SMALL_MESSAGE, decode};
use crate::failure::Failure;
use crate::health::SERVICES;
use crate::receive::Message;
use crate::reply::Reply;
use crate::service::{Shared, unknown_method};
use crate::stream::{Answers, Plan, serve};

/// The service's full name.
pub(crate) const V1: &str = "grpc.reflection.v1.ServerReflection";
/// Its older name. The messages are the same.
pub(crate) const V1_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// Answers `ServerReflectionInfo`.
///
/// # Errors
/// A [`Failure`] for the caller, not yet logged.
pub(crate) fn answer<B: RequestBody>(
    shared: &Arc<Shared>,
    call: Call<'_>,
    service: &str,
    method: &str,
    body: B,
) -> Result<Response<GrpcBody>, Failure> {
    if method != "ServerReflectionInfo" {
        return Err(unknown_method(&format!("/{service}/{method}")));
    }
    let context = Arc::clone(shared);
    let work = move |message: Message, answers: Answers| {
        let shared = Arc::clone(&context);
        async move {
            let parts = &shared.parts;
            let bytes = message.unpack(SMALL_MESSAGE, &parts.front, &*parts.compute).await?;
            let response = files().respond(decode(bytes)?);
            // Nobody listens any more where this fails.
            let _gone = answers.send(Reply::new(&response)?).await;
            Ok(())
        }
    };
    // One at a time: answers come in the order of the questions.
    let plan = Plan { max_message_bytes: SMALL_MESSAGE, at_once: 1, failure: Failure::from, work };
    Ok(serve(shared, call, body, plan))
}

/// Every file, and which of them declares what.
struct Files {
    by_name: HashMap<String, File>,
    /// From a symbol's full name to its file's.
    symbols: HashMap<String, String>,
}

struct File {
    bytes: Bytes,
    imports: Vec<String>,
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors are well formed");
        Files::new(set)
    })
}

impl Files {
    fn new(set: FileDescriptorSet) -> Self {
        let mut files = Self { by_name: HashMap::new(), symbols: HashMap::new() };
        for file in set.file {
            let name = file.name().to_owned();
            let mut symbols = Vec::new();
            declared(&file, &mut symbols);
            files.symbols.extend(symbols.into_iter().map(|symbol| (symbol, name.clone())));
            let bytes = Bytes::from(file.encode_to_vec());
            files.by_name.insert(name, File { bytes, imports: file.dependency });
        }
        files
    }

    fn respond(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let response = match &request.message_request {
            Some(MessageRequest::FileByFilename(name)) => self.file(name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => match self.symbols.get(symbol) {
                Some(name) => self.file(name),
                None => not_found("symbol", symbol),
            },
            // proto3 has no extensions, so no message here has any.
            Some(MessageRequest::FileContainingExtension(extension)) => {
                not_found("extension of", &extension.containing_type)
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) if self.symbols.contains_key(name) => {
                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                })
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => not_found("type", name),
            Some(MessageRequest::ListServices(_)) => {
                let service = SERVICES.map(|name| ServiceResponse { name: name.to_owned() }).to_vec();
                MessageResponse::ListServicesResponse(ListServiceResponse { service })
            }
            None => error(Code::InvalidArgument, "the request asks for nothing".to_owned()),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }

    /// A file and everything that it imports, itself first.
    fn file(&self, name: &str) -> MessageResponse {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            if let Some(file) = self.by_name.get(name).filter(|_| seen.insert(name)) {
                found.push(file.bytes.clone());
                open.extend(file.imports.iter().map(String::as_str));
            }
        }
        if found.is_empty() {
            return not_found("file", name);
        }
        MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto: found })
    }
}

fn not_found(what: &str, name: &str) -> MessageResponse {
    error(Code::NotFound, format!("unknown {what} {}", Quoted(name)))
}

fn error(code: Code, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.number().into(), error_message })
}

/// The full name of everything that `file` declares.
fn declared(file: &FileDescriptorProto, found: &mut Vec<String>) {
    let package = file.package();
    file.message_type.iter().for_each(|message| declared_in_message(package, message, found));
    file.enum_type.iter().for_each(|declared| declared_in_enum(package, declared, found));
    for service in &file.service {
        let name = join(package, service.name());
        found.extend(service.method.iter().map(|method| join(&name, method.name())));
        found.push(name);
    }
}

fn declared_in_message(scope: &str, message: &DescriptorProto, found: &mut Vec<String>) {
    let name = join(scope, message.name());
    message.nested_type.iter().for_each(|nested| declared_in_message(&name, nested, found));
    message.enum_type.iter().for_each(|nested| declared_in_enum(&name, nested, found));
    found.extend(message.field.iter().map(|field| join(&name, field.name())));
    found.extend(message.oneof_decl.iter().map(|oneof| join(&name, oneof.name())));
    found.push(name);
}

fn declared_in_enum(scope: &str, declared: &EnumDescriptorProto, found: &mut Vec<String>) {
    // Values live in the scope of their enum, as in C.
    found.extend(declared.value.iter().map(|value| join(scope, value.name())));
    found.push(join(scope, declared.name()));
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorProto;

    use super::{MessageRequest, MessageResponse, ServerReflectionRequest, files};
    use crate::health::SERVICES;

    fn ask(request: MessageRequest) -> MessageResponse {
        let request = ServerReflectionRequest { host: "h".to_owned(), message_request: Some(request) };
        let response = files().respond(request.clone());
        assert_eq!(response.original_request, Some(request));
        response.message_response.unwrap()
    }

    #[test]
    fn every_service_that_is_listed_can_be_looked_up_with_all_it_imports() {
        let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())) else {
            panic!("no list")
        };
        assert_eq!(list.service.len(), SERVICES.len());
        for service in list.service {
            let MessageResponse::FileDescriptorResponse(found) =
                ask(MessageRequest::FileContainingSymbol(service.name))
            else {
                panic!("no file")
            };
            let files = found.file_descriptor_proto.into_iter().map(FileDescriptorProto::decode);
            let files: Vec<_> = files.map(Result::unwrap).collect();
            for import in files.iter().flat_map(|file| &file.dependency) {
                assert!(files.iter().any(|file| file.name() == import), "{import}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_an_answer_and_no_end() {
        for request in [
            MessageRequest::FileContainingSymbol("inference.Nothing".to_owned()),
            MessageRequest::FileByFilename("nothing.proto".to_owned()),
            MessageRequest::AllExtensionNumbersOfType("inference.Nothing".to_owned()),
        ] {
            assert!(matches!(ask(request), MessageResponse::ErrorResponse(error) if error.error_code == 5));
        }
    }

    #[test]
    fn methods_fields_and_values_are_symbols_too() {
        for symbol in [
            "inference.GRPCInferenceService.ModelInfer",
            "inference.ModelInferRequest.InferInputTensor.shape",
            "inference.TYPE_FP32",
            "tensorflow.serving.ModelVersionStatus.AVAILABLE",
            "google.protobuf.Any",
        ] {
            let found = ask(MessageRequest::FileContainingSymbol(symbol.to_owned()));
            assert!(matches!(found, MessageResponse::FileDescriptorResponse(_)), "{symbol}");
        }
    }
}
