use millrace_core::{
    DType, Dim, DimExpr, InputError, Reason, RequestContext, Signature, SignatureError, Signatures, Tensor, TensorSpec,
};

fn zeros(sizes: &[usize]) -> Tensor {
    Tensor::from_vec(sizes, vec![0.0_f32; sizes.iter().product()]).unwrap()
}

fn spec(name: &str, shape: &[Dim]) -> TensorSpec {
    TensorSpec::new(name, DType::Fp32, shape)
}

fn n() -> Dim {
    Dim::symbol("N")
}

#[test]
fn a_shared_symbolic_first_axis_is_the_batch() {
    let signature = Signature::new(
        vec![spec("a", &[n(), Dim::Fixed(2)]), spec("b", &[n(), Dim::symbol("L")])],
        vec![spec("y", &[n(), Dim::symbol("L")])],
    )
    .unwrap();
    assert!(signature.is_batched());
    assert_eq!(signature.inputs()[0].batch_axis, Some(0));
    let admission = signature.check(&[zeros(&[3, 2]), zeros(&[3, 7])]).unwrap();
    assert_eq!((admission.rows, admission.group.0.as_slice()), (3, &[7][..]));
}

#[test]
fn without_a_shared_first_axis_nothing_is_batched() {
    let fixed = [Dim::Fixed(4)];
    let unbatched = [
        Signature::new(vec![spec("x", &fixed)], vec![spec("y", &fixed)]),
        Signature::new(vec![spec("x", &[n()])], vec![spec("y", &fixed)]),
        Signature::new(vec![spec("x", &[n()]), spec("threshold", &[])], vec![spec("y", &[n()])]),
        Signature::new(vec![spec("x", &[n(), n()])], vec![spec("y", &[n()])]),
        Signature::new(vec![spec("x", &[n()])], vec![]),
        Ok(Signature::new(vec![spec("x", &[n()])], vec![spec("y", &[n()])]).unwrap().unbatched()),
    ];
    for signature in unbatched {
        assert!(!signature.unwrap().is_batched());
    }
}

#[test]
fn an_unbatched_signature_still_binds_its_first_symbol() {
    let signature = Signature::new(vec![spec("x", &[n()])], vec![spec("y", &[n()])]).unwrap().unbatched();
    let admission = signature.check(&[zeros(&[5])]).unwrap();
    assert_eq!((admission.rows, admission.group.0.as_slice()), (1, &[5][..]));
}

#[test]
fn every_misfit_names_the_input_and_both_sides() {
    let signature = Signature::new(
        vec![
            spec("a", &[n(), Dim::Fixed(2)]),
            spec("b", &[n(), Dim::symbol("L")]),
            spec("c", &[n(), Dim::symbol("L")]),
        ],
        vec![spec("y", &[n()])],
    )
    .unwrap();
    let ok = || zeros(&[1, 2]);
    let text = |inputs: &[Tensor]| signature.check(inputs).unwrap_err().to_string();
    assert_eq!(text(&[ok()]), "expected 3 inputs, got 1");
    assert_eq!(text(&[zeros(&[1, 3]), ok(), ok()]), "input `a`: expected shape [N,2], got [1,3]");
    assert_eq!(text(&[zeros(&[2]), ok(), ok()]), "input `a`: expected shape [N,2], got [2]");
    assert_eq!(text(&[ok(), ok(), zeros(&[1, 3])]), "input `c`: axis L is 3, but another axis L of this request is 2");
    assert_eq!(text(&[ok(), zeros(&[2, 2]), ok()]), "input `b`: axis N is 2, but another axis N of this request is 1");
    let integers = Tensor::from_vec(&[1, 2], vec![1_i32, 2]).unwrap();
    assert_eq!(text(&[integers, ok(), ok()]), "input `a`: expected FP32, got INT32");
    let none = || zeros(&[0, 2]);
    assert_eq!(signature.check(&[none(), none(), none()]), Err(InputError::NoRows));
}

#[test]
fn named_inputs_are_put_in_order_or_refused() {
    let signature = Signature::new(vec![spec("a", &[n()]), spec("b", &[n()])], vec![spec("y", &[n()])]).unwrap();
    let arranged = signature.arrange([("b", zeros(&[2])), ("a", zeros(&[1]))]).unwrap();
    assert_eq!(arranged[0].shape().rows(), Some(1));
    let text = |named: Vec<(&str, Tensor)>| signature.arrange(named).unwrap_err().to_string();
    assert_eq!(text(vec![("a", zeros(&[1]))]), "input `b` is missing");
    assert_eq!(text(vec![("a", zeros(&[1])), ("a", zeros(&[1]))]), "input `a` was given twice");
    assert_eq!(text(vec![("a\n", zeros(&[1]))]), "unknown input `a\\n`; expected: a, b");
}

#[test]
fn an_output_that_would_be_negative_is_refused_before_the_run() {
    let height = DimExpr::Sum(vec![DimExpr::Symbol("H".into()), DimExpr::Number(-10)]);
    let signature =
        Signature::new(vec![spec("image", &[n(), Dim::symbol("H")])], vec![spec("map", &[n(), Dim::Expr(height)])])
            .unwrap();
    assert!(signature.check(&[zeros(&[1, 10])]).is_ok());
    let text = signature.check(&[zeros(&[1, 8])]).unwrap_err().to_string();
    assert!(text.contains("output `map`") && text.contains("(H+-10) would be -2"), "{text}");
}

#[test]
fn contradictory_signatures_are_refused() {
    let twice = Signature::new(vec![spec("x", &[]), spec("x", &[])], vec![]);
    assert_eq!(twice, Err(SignatureError::Duplicate("x".into())));
    let unbound = Signature::new(vec![spec("x", &[n()])], vec![spec("y", &[Dim::symbol("M")])]);
    assert_eq!(unbound, Err(SignatureError::Unbound { output: "y".into(), symbol: "M".into() }));
    let unknown = Signature::new(vec![spec("x", &[Dim::Unknown])], vec![]);
    assert_eq!(unknown, Err(SignatureError::InputAxis("x".into())));
}

#[test]
fn an_empty_signature_name_means_serving_default() {
    let signature = Signature::new(vec![spec("x", &[n()])], vec![spec("y", &[n()])]).unwrap();
    let signatures = Signatures::single(signature.clone()).with("other", signature.unbatched());
    assert_eq!(signatures.find("").map(|(index, _)| index), Some(0));
    assert_eq!(signatures.find("serving_default").map(|(index, _)| index), Some(0));
    assert_eq!(signatures.find("other").map(|(index, _)| index), Some(1));
    assert!(signatures.find("missing").is_none());
}

fn counted(counts: TensorSpec, rows: TensorSpec) -> Result<Signature, SignatureError> {
    let image = TensorSpec::new("image", DType::Bytes, [n()]);
    Signature::new(vec![image], vec![counts, rows])
}

#[test]
fn ragged_outputs_are_batched_by_what_counts_them() {
    let counts = TensorSpec::new("counts", DType::Int32, [n()]);
    let boxes = TensorSpec::new("boxes", DType::Fp32, [Dim::Unknown, Dim::Fixed(4)]).ragged_by("counts");
    let signature = counted(counts.clone(), boxes.clone().in_record("faces")).unwrap();
    assert!(signature.is_batched());
    assert_eq!((signature.outputs()[0].batch_axis, signature.outputs()[1].batch_axis), (Some(0), None));
    assert_eq!(signature.outputs()[1].to_string(), "boxes FP32[?,4] ragged by counts");

    let wrong = [
        (TensorSpec::new("n", DType::Int32, [n()]), boxes.clone()),
        (TensorSpec::new("counts", DType::Fp32, [n()]), boxes.clone()),
        (TensorSpec::new("counts", DType::Int32, [n(), Dim::Fixed(1)]), boxes),
        (counts.clone(), TensorSpec::new("boxes", DType::Fp32, [n(), Dim::Fixed(4)]).ragged_by("counts")),
        (counts, TensorSpec::new("boxes", DType::Fp32, [n(), Dim::Fixed(4)]).in_record("faces")),
    ];
    for (counts, rows) in wrong {
        assert!(matches!(counted(counts, rows), Err(SignatureError::Ragged { .. })));
    }
}

#[test]
fn fields_of_a_record_share_a_count_and_no_output_has_its_name() {
    let image = || vec![TensorSpec::new("image", DType::Bytes, [n()])];
    let counts = |name: &str| TensorSpec::new(name, DType::Int64, [n()]);
    let field = |name: &str, counts: &str| {
        TensorSpec::new(name, DType::Fp32, [Dim::Unknown]).ragged_by(counts).in_record("faces")
    };
    let outputs = |second: &str| vec![counts("a"), counts("b"), field("score", "a"), field("size", second)];
    assert!(Signature::new(image(), outputs("a")).is_ok());
    let other = Signature::new(image(), outputs("b")).unwrap_err();
    assert!(other.to_string().contains("the record `faces` needs one count, but its field `size`"), "{other}");
    let named = Signature::new(image(), vec![counts("a"), counts("faces"), field("score", "a")]).unwrap_err();
    assert!(named.to_string().contains("its record `faces` has the name of an output"), "{named}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a context has an instant, whichever")]
fn pipelines_that_ask_one_another_come_to_an_end() {
    let mut context = RequestContext::new(std::time::Instant::now());
    for depth in 1..=RequestContext::DEEPEST {
        context = context.nested().unwrap();
        assert_eq!(context.depth, depth);
    }
    assert_eq!(context.nested().unwrap_err().reason(), Reason::InvalidInput);
}

#[test]
fn a_mixed_symbol_does_not_part_requests() {
    let inputs = vec![spec("a", &[n(), Dim::symbol("L")]), spec("b", &[n(), Dim::symbol("W")])];
    let plain = Signature::new(inputs, vec![spec("y", &[n(), Dim::symbol("L")])]).unwrap();
    let mixed = plain.clone().mixed("L").unwrap();
    assert!(mixed.is_mixed() && !plain.is_mixed() && !mixed.clone().unbatched().is_mixed());
    assert_ne!(mixed, plain);
    let check = |length: usize| mixed.check(&[zeros(&[1, length]), zeros(&[1, 4])]).unwrap();
    assert_ne!(check(2).group, check(3).group);
    assert_eq!(mixed.shared_group(&check(2)), mixed.shared_group(&check(3)));
    assert_eq!(mixed.shared_group(&check(2)).0.as_slice(), [0, 4]);
    assert_eq!(plain.shared_group(&check(2)), check(2).group);
}

#[test]
fn what_cannot_be_mixed_is_said() {
    let length = || Dim::symbol("L");
    let plain = Signature::new(vec![spec("a", &[n(), length()])], vec![spec("y", &[n()])]).unwrap();
    for symbol in ["N", "X"] {
        let error = plain.clone().mixed(symbol).unwrap_err().to_string();
        assert!(error.contains("no input has an axis of that name"), "{error}");
    }
    let error = plain.unbatched().mixed("L").unwrap_err().to_string();
    assert!(error.contains("not batched"), "{error}");
    let twice = Dim::Expr(DimExpr::Sum(vec![DimExpr::Symbol("L".into()), DimExpr::Symbol("L".into())]));
    let reckoned = Signature::new(vec![spec("a", &[n(), length()])], vec![spec("y", &[n(), twice])]).unwrap();
    let error = reckoned.mixed("L").unwrap_err().to_string();
    assert!(error.contains("output `y`"), "{error}");
}
