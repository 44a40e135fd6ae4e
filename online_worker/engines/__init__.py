"""What turns a generation into answers: ONNX files, Python classes, or nothing but an echo."""
