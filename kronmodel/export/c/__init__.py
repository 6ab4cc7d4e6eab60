"""Export of ONNX models as C99 source code for microcontrollers, and as libraries and folders made of it."""
