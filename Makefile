# mimo: make (build), make run, make test, make lint, make bench, make deps, make help

CXX      ?= g++
BUILD    ?= build
MARCH    ?= native
SANITIZE ?=
OPT      ?= -O3
CXXSTD   := -std=c++20
# -Wrestrict: g++ 12 reports copies within std::string that cannot happen (its bug 105651).
WARN     := -Wall -Wextra -Wshadow -Werror -Wno-restrict
# No errno and no traps from floating point: both only keep loops from being vectorised; results do not change.
CXXFLAGS += $(CXXSTD) $(OPT) -g1 -march=$(MARCH) -fopenmp-simd -fno-math-errno -fno-trapping-math -ffp-contract=fast $(WARN) -I. $(SANFLAGS)
SANFLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)

# Debian packages. (xxhash: checksums of checkpoint files. boost-context: the fibers of the CUDA emulator. patchelf: the
# bundle's programs look for libraries beside themselves.)
DEPS := g++ make pkg-config clang-format \
  openmpi-bin libopenmpi-dev \
  libhdf5-dev \
  libxxhash-dev \
  libtomlplusplus-dev nlohmann-json3-dev libcli11-dev libfmt-dev \
  libpng-dev \
  libboost-context-dev \
  libgtest-dev \
  libbenchmark-dev \
  patchelf \
  python3-h5py

MPI_INC  = $(shell mpicxx --showme:incdirs 2>/dev/null | tr ' ' '\n' | sed 's/^/-isystem /')
MPI_LIB  = $(shell mpicxx --showme:link 2>/dev/null)
HDF5_INC = $(shell pkg-config --cflags hdf5 2>/dev/null | sed 's/-I/-isystem /g')
HDF5_LIB = $(shell pkg-config --libs hdf5 2>/dev/null)
LIBS     = $(HDF5_LIB) $(MPI_LIB) -lxxhash -lpng -lfmt -ltomlplusplus -lpthread -ldl

MISSING = $(strip $(shell dpkg-query -W -f='$${Package} $${db:Status-Status}\n' $(DEPS) 2>/dev/null \
            | awk '$$2=="installed"{print $$1}' | sort > /tmp/.mimo-have-$$$$; \
            printf '%s\n' $(DEPS) | sort | comm -23 - /tmp/.mimo-have-$$$$; rm -f /tmp/.mimo-have-$$$$))

MODULES := kernels/cpu tensor parallel io nn data
# What reaches a GPU stands in one of three sets of files: the real ones, the emulator's, or those that throw.
ABSENT  := kernels/no_cuda.cpp tensor/no_cuda.cpp parallel/no_nccl.cpp
LIB_SRC := $(filter-out $(ABSENT),$(foreach d,$(MODULES),$(wildcard $(d)/*.cpp)))
LIB_OBJ := $(LIB_SRC:%.cpp=$(BUILD)/obj/%.o)
# Things that are found by name register themselves; nothing refers to their files, so the linker is given them as they are.
REGISTERED := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard nn/kinds/*.cpp nn/mixers/*.cpp data/decoders/*.cpp data/tokenizers/*.cpp data/tasks/*.cpp))
ARCHIVE := $(BUILD)/libmimo.a
LIB     := $(REGISTERED) $(ARCHIVE)
CPU_OBJ := $(filter $(BUILD)/obj/kernels/cpu/%,$(LIB_OBJ))

# The toolkit: nvcc in $CUDA_HOME, on the path or in the usual place, with headers and libraries beside it. NVCC= does without.
NVCC      := $(or $(NVCC),$(if $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc)),$(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME := $(or $(wildcard $(CUDA_HOME)),$(patsubst %/bin/nvcc,%,$(realpath $(NVCC))),/usr/local/cuda)
CUDA_INC  := $(addprefix -isystem ,$(filter-out /usr/include,$(wildcard $(CUDA_HOME)/include $(CUDA_HOME)/targets/x86_64-linux/include)))
CUDA_LIBS := $(addprefix -L,$(wildcard $(CUDA_HOME)/lib64 $(CUDA_HOME)/targets/x86_64-linux/lib $(CUDA_HOME)/lib)) -lcudart_static -lrt -ldl
# cuBLASLt is loaded at run time; its header and NVTX's come with the toolkit (libcublas-dev, cuda-nvtx) but not with nvcc alone.
HEADER     = $(wildcard $(addsuffix /$(1),$(CUDA_HOME)/include $(CUDA_HOME)/targets/x86_64-linux/include))
TOOLKIT   := $(and $(NVCC),$(call HEADER,cublasLt.h),$(call HEADER,nvtx3/nvToolsExt.h))
# For the GPU that is here, else for those that `make cubin` checks. Each choice has its own objects.
ALL_ARCH  := 80 90a 100a
CUDA_ARCH := $(or $(CUDA_ARCH),$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null \
  | sed -n 's/^\([0-9]*\)\.\([0-9]\)$$/\1\2/p' | sed 's/^90$$/90a/; s/^1[0-9][0-9]$$/&a/' | sort -u),$(ALL_ARCH))
SPACE     := $(subst ,, )
CUDA_DIR  := $(BUILD)/cuda/$(subst $(SPACE),-,$(strip $(CUDA_ARCH)))
CU_SRC    := $(wildcard kernels/cuda/*.cu)
# Host code that calls CUDA, cuBLASLt or NCCL; the libraries are loaded when they are first needed.
NCCL_H    := $(firstword $(wildcard $(CUDA_HOME)/include/nccl.h /usr/include/nccl.h /usr/local/include/nccl.h))
CUDA_HOST := $(wildcard kernels/cuda/*.cpp tensor/cuda/*.cpp) $(if $(NCCL_H),$(wildcard parallel/nccl/*.cpp))
CU_OBJ    := $(CU_SRC:%.cu=$(CUDA_DIR)/%.o)
HOST_OBJ  := $(CUDA_HOST:%.cpp=$(CUDA_DIR)/%.o) $(if $(NCCL_H),,$(BUILD)/obj/parallel/no_nccl.o)
CUDA_OBJ  := $(CU_OBJ) $(HOST_OBJ)
NVCCFLAGS := $(CXXSTD) -O3 -lineinfo --expt-relaxed-constexpr -I. -Xcompiler -Wall,-Wextra,-Wshadow,-fopenmp-simd -Werror all-warnings \
  $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a)) -Xptxas -v

# The emulator's build of the same kernels, by g++ alone.
SIMT_OBJ   := $(CU_SRC:%.cu=$(BUILD)/simt/%.o) $(patsubst %.cpp,$(BUILD)/simt/%.o,kernels/cuda/registry.cpp kernels/cuda/gemm.cpp \
  $(filter-out %_test.cpp,$(wildcard tests/simt/*.cpp)) parallel/no_nccl.cpp)
SIMT_FLAGS := -Itests/simt/overlay -Wno-unknown-pragmas

ABSENT_OBJ := $(ABSENT:%.cpp=$(BUILD)/obj/%.o)
GPU_OBJ    := $(if $(TOOLKIT),$(CUDA_OBJ),$(ABSENT_OBJ))
GPU_LIBS   := $(if $(TOOLKIT),$(CUDA_LIBS))

MAINS     := $(wildcard tools/*.cpp)
TOOL_OBJ  := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tools/run/*.cpp tools/run/*/*.cpp))
BENCH_OBJ := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tools/bench/*.cpp))
BIN       ?=
PROGRAMS  := $(MAINS:tools/%.cpp=$(BIN)%)

TEST_DIRS := $(filter-out mpi cuda simt gpu bench docs,$(sort $(notdir $(patsubst %/,%,$(dir $(wildcard tests/*/*_test.cpp))))))
TEST_BINS := $(TEST_DIRS:%=$(BUILD)/tests/%) $(BUILD)/tests/docs $(BUILD)/tests/cuda $(BUILD)/tests/simt $(BUILD)/tests/bench $(if $(TOOLKIT),$(BUILD)/tests/toolkit)
MPI_TESTS := $(patsubst tests/mpi/%.cpp,$(BUILD)/tests/mpi/%,$(wildcard tests/mpi/*_test.cpp)) $(if $(and $(NVCC),$(NCCL_H)),$(BUILD)/tests/mpi/nccl_test)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:  # keep the objects of the MPI tests
.PHONY: all check-deps deps run test test-all test-asan test-mutants tests cubin cubin-table gpu-tests gpu-mpi-tests lint format bench \
  clean help report FORCE bundle bundled test-bundle gpu-check

all: check-deps report $(PROGRAMS)

help:
	@echo "make          build ./mimo and ./mimo-data        make run    install what is missing, build, train and show"
	@echo "make test     install, build and run the tests    make bench  kernels, and the default run's profile"
	@echo "make test-all the long checks too                 make lint   formatting and include rules"
	@echo "make deps     install Debian packages             make clean  remove $(BUILD)*/ and the programs"
	@echo "make test-asan CUDA kernels on the CPU, sanitized make cubin  registers, shared memory and spills of the kernels"
	@echo "make test-mutants plants faults one at a time that tests have to catch (ARGS=words chooses some)"
	@echo "make gpu-check checks and measures on a GPU       make bundle the same for a machine without a compiler, one file"
	@echo "make gpu-tests build $(BUILD)/gpu/tests, the kernels' tests for a machine with a GPU"
	@echo "variables: SANITIZE=address,undefined  BUILD=dir  MARCH=native  CUDA_HOME=dir  CUDA_ARCH=90a  NVCC= (without CUDA)  RANKS=4 (make run)"

check-deps:
	@m="$(MISSING)"; if [ -n "$$m" ]; then \
	  printf 'missing packages: %s\n  run: make deps   (or: apt-get install -y %s)\n' "$$m" "$$m"; exit 1; fi

deps:
	@m="$(MISSING)"; [ -z "$$m" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo=sudo; \
	else printf 'missing packages; run this line, then try again:\n  sudo apt-get install -y %s\n' "$$m"; exit 1; fi; \
	echo "installing: $$m"; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$m >/dev/null

# What was found of the optional parts, and what absence means.
have = $(if $(wildcard $(1)),✓,✗)
report:
	@echo "mimo: MPI $$(mpirun --version 2>/dev/null | sed -n '1s/.* //p'), $$($(CXX) --version | sed -n 1p), -march=$(MARCH)"
	@printf '  %s\n' \
	  "$(if $(TOOLKIT),✓,✗) CUDA       $(if $(TOOLKIT),kernels for $(CUDA_ARCH:%=sm_%),without its toolkit (nvcc, cuBLASLt's and NVTX's headers) all computes on the CPU)" \
	  "$(call have,/usr/include/nccl.h $(CUDA_HOME)/include/nccl.h) NCCL       without it ranks talk through MPI alone (Debian: libnccl-dev, or NVIDIA's packages)" \
	  "$(call have,/usr/include/cudnn.h $(CUDA_HOME)/include/cudnn.h) cuDNN      a reference for benchmarks only"

$(BUILD)/obj/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	@echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) $(MPI_INC) $(HDF5_INC) -MMD -MP -c $< -o $@

# Only kernels gain from -O3; tests spend their time in what they test, and compile in half the time so.
$(BUILD)/obj/io/%.o $(BUILD)/obj/tools/%.o: OPT := -O2
$(BUILD)/obj/tests/%.o: OPT := -O1

$(BUILD)/simt/%.o: %.cu Makefile
	@mkdir -p $(@D)
	@echo "  SIMT $<"
	@$(CXX) $(SIMT_FLAGS) $(CXXFLAGS) -O2 -MMD -MP -x c++ -c $< -o $@

$(BUILD)/simt/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	@echo "  SIMT $<"
	@$(CXX) $(SIMT_FLAGS) $(CXXFLAGS) -O2 $(MPI_INC) $(HDF5_INC) -MMD -MP -c $< -o $@

# ptxas says what each kernel uses; the .log beside the object keeps it for `make cubin`.
$(CUDA_DIR)/%.o: %.cu Makefile
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) $(NVCCFLAGS) -MD -MP -MF $(@:.o=.d) -c $< -o $@ 2>$(@:.o=.log) || { grep -v '^ptxas info' $(@:.o=.log); rm -f $@; exit 1; }

$(CUDA_DIR)/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	@echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) $(CUDA_INC) $(MPI_INC) -MMD -MP -c $< -o $@

$(ARCHIVE): $(LIB_OBJ)
	@rm -f $@; ar rcs $@ $^

# With or without CUDA, NCCL or an architecture: programs are linked again when that has changed, though objects have not.
LINKED := $(BUILD)/linked
FORCE:
$(LINKED): FORCE
	@mkdir -p $(@D); echo '$(GPU_OBJ)' | cmp -s - $@ || echo '$(GPU_OBJ)' >$@

$(PROGRAMS): $(BIN)%: $(BUILD)/obj/tools/%.o $(TOOL_OBJ) $(GPU_OBJ) $(LIB) $(LINKED)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out $(LINKED),$^) $(LIBS) $(GPU_LIBS) -o $@

$(BIN)mimo-bench: $(BENCH_OBJ) $(GPU_OBJ) $(LIB) $(LINKED)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out $(LINKED),$^) -lbenchmark $(LIBS) $(GPU_LIBS) -o $@

define TEST_RULE
$(BUILD)/tests/$(1): $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/$(1)/*.cpp)) $(TOOL_OBJ) $(ABSENT_OBJ) $(LIB)
	@mkdir -p $$(@D); echo "  LINK $$@"
	@$(CXX) $(CXXFLAGS) $$^ -lgtest_main -lgtest $$(LIBS) -o $$@
endef
$(foreach d,$(TEST_DIRS),$(eval $(call TEST_RULE,$(d))))

# The examples of docs/extending.md, taken out of the page.
DOC_FILES := $(shell sed -n '/^```cpp/{n;s,^// \(.*\.\(cpp\|cu\|h\)\)$$,\1,p}' docs/extending.md 2>/dev/null)
DOC_OBJ := $(patsubst %.cpp,$(BUILD)/docs/%.o,$(filter %.cpp,$(DOC_FILES))) $(patsubst %.cu,$(BUILD)/docs/%.cu.o,$(filter %.cu,$(DOC_FILES)))
$(DOC_FILES:%=$(BUILD)/docs/%) &: docs/extending.md tests/docs/extract.sh
	@tests/docs/extract.sh $< $(BUILD)/docs
$(filter-out %.cu.o,$(DOC_OBJ)): %.o: %.cpp Makefile
	@echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) -O1 -I$(BUILD)/docs $(MPI_INC) $(HDF5_INC) -MMD -MP -c $< -o $@
$(BUILD)/docs/%.cu.o: $(BUILD)/docs/%.cu Makefile
	@echo "  SIMT $<"
	@$(CXX) $(SIMT_FLAGS) $(CXXFLAGS) -O1 -I$(BUILD)/docs -MMD -MP -x c++ -c $< -o $@
$(DOC_OBJ): $(filter %.h,$(DOC_FILES:%=$(BUILD)/docs/%))
$(BUILD)/tests/docs: $(DOC_OBJ) $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/docs/*.cpp) tests/cuda/errors.cpp) $(SIMT_OBJ) $(TOOL_OBJ) $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lgtest_main -lgtest -lboost_context $(LIBS) -o $@

# Kernels against the CPU's (tests/cuda), and the emulator's own tests (tests/simt).
CUDA_TEST_OBJ := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/cuda/*.cpp))
SIMT_TEST_OBJ := $(patsubst %.cpp,$(BUILD)/simt/%.o,$(wildcard tests/simt/*_test.cpp))
$(BUILD)/tests/cuda: $(CUDA_TEST_OBJ) $(SIMT_OBJ) $(CPU_OBJ)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/no_nccl.o %/runtime.o,$^) -lgtest_main -lgtest -lboost_context -o $@

$(BUILD)/tests/simt: $(SIMT_TEST_OBJ) $(BUILD)/obj/tests/tools/program.o $(SIMT_OBJ) $(TOOL_OBJ) $(LIB) $(BUILD)/mimo-emulated
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/mimo-emulated,$^) -lgtest_main -lgtest -lboost_context $(LIBS) -o $@

# The whole program on the emulated GPU, and the benchmarks (for their logic: --device=cuda --small).
$(BUILD)/mimo-bench-emulated: $(BENCH_OBJ) $(SIMT_OBJ) $(LIB)
	@echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/memory.o,$^) -lbenchmark -lboost_context $(LIBS) -o $@
$(BUILD)/tests/bench: $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/bench/*.cpp) tests/tools/program.cpp) \
  $(filter-out %/main.o,$(BENCH_OBJ)) $(SIMT_OBJ) $(TOOL_OBJ) $(LIB) $(BUILD)/mimo-bench-emulated
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/memory.o %/mimo-bench-emulated,$^) -lgtest_main -lgtest -lbenchmark -lboost_context $(LIBS) -o $@
$(BUILD)/mimo-emulated: $(BUILD)/obj/tools/mimo.o $(SIMT_OBJ) $(TOOL_OBJ) $(LIB)
	@echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/memory.o,$^) -lboost_context $(LIBS) -o $@

# What needs the toolkit's headers and no GPU. A library of ours stands in cuBLASLt's place (tests/gpu/column_major.cpp).
TOOLKIT_OBJ := $(patsubst %.cpp,$(CUDA_DIR)/%.o,$(addprefix tests/gpu/,bf16_test.cpp library_test.cpp runtime_test.cpp) \
    kernels/cuda/cublaslt.cpp kernels/cuda/library.cpp tensor/cuda/runtime.cpp) \
  $(patsubst %,$(BUILD)/simt/%.o,tests/simt/simt tests/simt/memory tests/simt/device_memory kernels/cuda/registry kernels/cuda/gemm kernels/cuda/gemm_scale) \
  $(patsubst %,$(BUILD)/obj/tests/cuda/%.o,errors gemm_test)
$(BUILD)/tests/toolkit: $(TOOLKIT_OBJ) $(CPU_OBJ) $(BUILD)/toolkit/libcublasLt.so.13
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter %.o,$^) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../toolkit' \
	  -lgtest_main -lgtest -lboost_context $(CUDA_LIBS) -o $@

$(BUILD)/toolkit/libcublasLt.so.13: tests/gpu/column_major.cpp Makefile
	@mkdir -p $(@D); echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) $(CUDA_INC) -fPIC -shared $< -o $@

# The kernels' tests on a GPU: the same ones, without the emulator.
GPU_TEST_OBJ := $(CUDA_TEST_OBJ) $(patsubst %.cpp,$(CUDA_DIR)/%.o,tests/gpu/memory.cpp tests/gpu/device_test.cpp tests/gpu/runtime_test.cpp)
$(BUILD)/gpu/tests: $(GPU_TEST_OBJ) $(filter-out $(CUDA_DIR)/parallel/%,$(CUDA_OBJ)) $(CPU_OBJ)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lgtest_main -lgtest $(CUDA_LIBS) -o $@

NEEDS_NVCC = $(if $(NVCC),,@echo "make $@: no nvcc. Install CUDA's toolkit, or say where it is: make $@ CUDA_HOME=/path"; exit 1)
gpu-tests: $(if $(TOOLKIT),$(BUILD)/gpu/tests $(BUILD)/gpu/nccl_test)
	$(NEEDS_NVCC)

cubin:
	$(NEEDS_NVCC)
	@$(MAKE) --no-print-directory -j$$(nproc) CUDA_ARCH="$(ALL_ARCH)" cubin-table
cubin-table: $(CUDA_DIR)/cubin_table
	@$< tests/cubin_allowed.txt $(CU_OBJ:.o=.log)
# (The directory is newer after a kernel was removed.)
$(CUDA_DIR)/cubin_table: $(CUDA_DIR)/tests/cubin_table.o $(CUDA_DIR)/kernels/cuda/registry.o $(CU_OBJ) kernels/cuda
	@$(CXX) $(CXXFLAGS) $(filter %.o,$^) $(CUDA_LIBS) -o $@

# Under the sanitizers, the emulator and what runs in it; the CPU's kernels and the tests are those of every other test.
$(BUILD)/tests/emulator: $(BUILD)/simt/tests/simt/simt_test.o $(SIMT_OBJ) $(CPU_OBJ)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/no_nccl.o %/runtime.o,$^) -lgtest_main -lgtest -lboost_context -o $@
test-asan: deps
	@$(MAKE) --no-print-directory -j$$(nproc) $(CPU_OBJ) $(CUDA_TEST_OBJ)
	@$(MAKE) --no-print-directory -j$$(nproc) BUILD=$(BUILD)-asan SANITIZE=address,undefined OPT=-O1 CPU_OBJ="$(CPU_OBJ)" CUDA_TEST_OBJ="$(CUDA_TEST_OBJ)" \
	  $(BUILD)-asan/tests/cuda $(BUILD)-asan/tests/emulator
	@ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 tests/run.sh $(BUILD)-asan/tests

MPI_COMMON := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(filter-out %_test.cpp,$(wildcard tests/mpi/*.cpp)))
$(BUILD)/tests/mpi/%: $(BUILD)/obj/tests/mpi/%.o $(MPI_COMMON) $(TOOL_OBJ) $(ABSENT_OBJ) $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lgtest $(LIBS) -o $@

# Copies and waits between host and device, on a runtime that does its work late; where NCCL's header is, with
# a library of ours in NCCL's place.
STAGED_OBJ := $(BUILD)/obj/tests/mpi/late/runtime.o $(BUILD)/obj/kernels/no_cuda.o $(BUILD)/obj/parallel/no_nccl.o
$(BUILD)/tests/mpi/staged_test: $(BUILD)/obj/tests/mpi/staged_test.o $(MPI_COMMON) $(TOOL_OBJ) $(STAGED_OBJ) $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lgtest $(LIBS) -o $@

LATE_NCCL := $(BUILD)/obj/tests/gpu/nccl_test.o $(BUILD)/obj/tests/mpi/late/runtime.o $(BUILD)/obj/kernels/no_cuda.o \
  $(CUDA_DIR)/parallel/nccl/nccl_communicator.o $(CUDA_DIR)/kernels/cuda/library.o
$(BUILD)/tests/mpi/nccl_test: $(LATE_NCCL) $(MPI_COMMON) $(TOOL_OBJ) $(LIB) $(BUILD)/late/libnccl.so.2
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) -rdynamic $(filter-out %.so.2,$^) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../../late' -lgtest $(LIBS) -o $@

$(BUILD)/late/libnccl.so.2: tests/mpi/late/nccl.cpp tests/mpi/late/queue.h Makefile
	@mkdir -p $(@D); echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) $(CUDA_INC) $(MPI_INC) -fPIC -shared $< -o $@

# NCCL between GPUs, by hand: it needs one. It launches no kernels of ours.
$(BUILD)/gpu/nccl_test: $(BUILD)/obj/tests/gpu/nccl_test.o $(MPI_COMMON) $(TOOL_OBJ) $(BUILD)/obj/kernels/no_cuda.o \
  $(filter-out $(CUDA_DIR)/kernels/%,$(HOST_OBJ)) $(CUDA_DIR)/kernels/cuda/library.o $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lgtest $(LIBS) $(CUDA_LIBS) -o $@
gpu-mpi-tests: $(BUILD)/gpu/nccl_test

SCRIPTS := tests/gpu_check_test.sh tests/ranks_test.sh
tests: check-deps $(PROGRAMS) $(TEST_BINS) $(MPI_TESTS)

test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) tests
	@tests/run.sh $(BUILD)/tests $(SCRIPTS)

test-all: deps
	@$(MAKE) --no-print-directory -j$$(nproc) tests
	@MIMO_TEST_ALL=1 tests/run.sh $(BUILD)/tests $(SCRIPTS)

# Are the tests awake? An hour or so, as libraries and tests are built for each of some hundred faults.
test-mutants: deps
	@tests/mutants.sh $(ARGS)

export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
run: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	mpirun --oversubscribe -n $(or $(RANKS),$(shell tools/ranks.sh)) ./mimo $(ARGS)

# Kernels, then the default run: tokens/s and where its time goes. ARGS chooses kernels and leaves the run out.
bench: deps
	@$(MAKE) --no-print-directory -j$$(nproc) mimo-bench all
	./mimo-bench $(ARGS)
	$(if $(ARGS),,@dir=$$(mktemp -d) && trap 'rm -rf '$$dir EXIT && \
	  mpirun --oversubscribe -n 2 ./mimo train --profile --run.dir=$$dir --train.steps=300 --eval.every=0 \
	    --checkpoint.every=0 > $$dir/log && sed -n '/profile of/,$$p' $$dir/log || { cat $$dir/log; exit 1; })

# Everything a machine with a GPU needs, in one file: unpack, ./gpu_check.sh. The programs are built for any x86-64 with AVX2
# and for one GPU architecture, the one that the kernels are tuned on (variable CUDA_ARCH).
BUNDLE := mimo-bundle.tar.gz
bundle: deps
	@nice $(MAKE) --no-print-directory -j$$(nproc) BUILD=$(BUILD)/bundle BIN=$(BUILD)/bundle/bin/ MARCH=x86-64-v3 \
	  CUDA_ARCH="$(if $(filter command%,$(origin CUDA_ARCH)),$(CUDA_ARCH),90a)" bundled
	@tools/bundle.sh $(BUNDLE) $$(find $(BUILD)/bundle/bin $(BUILD)/bundle/gpu -type f -executable 2>/dev/null)

GPU_TESTS := $(if $(TOOLKIT),gpu-tests)
bundled: check-deps $(PROGRAMS) $(BIN)mimo-bench $(GPU_TESTS)

test-bundle: bundle
	@tests/bundle_test.sh $(BUNDLE)

# Checks and measures on this machine's GPU; without one it says so, with status 2. OUT=folder for what it writes.
gpu-check:
	@tools/gpu_check.sh --probe
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$$(nproc) all mimo-bench $(GPU_TESTS)
	@tools/gpu_check.sh $(ARGS)

SOURCES := $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' 2>/dev/null)
lint:
	@tests/lint.sh $(SOURCES)

format:
	@clang-format -i $(SOURCES)

clean:
	rm -rf $(BUILD) $(BUILD)-asan mimo mimo-data mimo-bench $(BUNDLE)

-include $(shell find $(BUILD)/obj $(BUILD)/simt $(BUILD)/cuda $(BUILD)/docs -name '*.d' 2>/dev/null)
