// All kernels: one file for nvcc and for the tests' library.
#include "attention_backward.cu"
#include "attention_forward.cu"
#include "columns.cu"
#include "fold.cu"
#include "geglu.cu"
#include "group_norm.cu"
#include "layer_norm.cu"
#include "optimiser.cu"
