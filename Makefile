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
CXXFLAGS += $(CXXSTD) $(OPT) -g1 -march=$(MARCH) -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast $(WARN) -I. $(SANFLAGS)
SANFLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)

# Debian packages. (xxhash: checksums of checkpoint files. boost-context: the fibers of the CUDA emulator. patchelf: the
# bundle's programs look for libraries beside themselves.)
DEPS := g++ make pkg-config clang-format \
  openmpi-bin libopenmpi-dev \
  libhdf5-dev \
  libxxhash-dev \
  libdnnl-dev \
  libtomlplusplus-dev nlohmann-json3-dev libcli11-dev libfmt-dev \
  libpng-dev \
  libboost-context-dev \
  libgtest-dev \
  libbenchmark-dev \
  patchelf

MPI_INC  = $(shell mpicxx --showme:incdirs 2>/dev/null | tr ' ' '\n' | sed 's/^/-isystem /')
MPI_LIB  = $(shell mpicxx --showme:link 2>/dev/null)
HDF5_INC = $(shell pkg-config --cflags hdf5 2>/dev/null | sed 's/-I/-isystem /g')
HDF5_LIB = $(shell pkg-config --libs hdf5 2>/dev/null)
LIBS     = $(HDF5_LIB) $(MPI_LIB) -lxxhash -ldnnl -lpng -lfmt -lpthread -ldl

MISSING = $(strip $(shell dpkg-query -W -f='$${Package} $${db:Status-Status}\n' $(DEPS) 2>/dev/null \
            | awk '$$2=="installed"{print $$1}' | sort > /tmp/.mimo-have-$$$$; \
            printf '%s\n' $(DEPS) | sort | comm -23 - /tmp/.mimo-have-$$$$; rm -f /tmp/.mimo-have-$$$$))

MODULES := kernels/cpu tensor parallel io nn data
# What reaches a GPU stands in one of three sets of files: the real ones, the emulator's, or those that throw.
ABSENT  := kernels/no_cuda.cpp tensor/no_cuda.cpp parallel/no_nccl.cpp
LIB_SRC := $(filter-out $(ABSENT),$(foreach d,$(MODULES),$(wildcard $(d)/*.cpp)))
LIB_OBJ := $(LIB_SRC:%.cpp=$(BUILD)/obj/%.o)
LIB     := $(BUILD)/libmimo.a
CPU_OBJ := $(filter $(BUILD)/obj/kernels/cpu/%,$(LIB_OBJ))

CUDA_HOME ?= /usr/local/cuda
NVCC      ?= $(or $(shell command -v nvcc),$(wildcard $(CUDA_HOME)/bin/nvcc))
CU_SRC    := $(wildcard kernels/cuda/*.cu)
# Host code that calls CUDA, cuBLASLt or NCCL.
CUDA_HOST := $(wildcard kernels/cuda/*.cpp tensor/cuda/*.cpp parallel/nccl/*.cpp)
CUDA_ARCH ?= 80 90a 100a
CUDA_OBJ  := $(CU_SRC:%.cu=$(BUILD)/cuda/%.o) $(CUDA_HOST:%.cpp=$(BUILD)/cuda/%.o)
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lrt
NVCCFLAGS := $(CXXSTD) -O3 -lineinfo --expt-relaxed-constexpr -I. -Xcompiler -Wall,-Wextra,-Wshadow,-fopenmp -Werror all-warnings \
  $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a)) -Xptxas -v

# The emulator's build of the same kernels, by g++ alone.
SIMT_OBJ   := $(CU_SRC:%.cu=$(BUILD)/simt/%.o) $(patsubst %.cpp,$(BUILD)/simt/%.o,kernels/cuda/registry.cpp \
  $(filter-out %_test.cpp,$(wildcard tests/simt/*.cpp)) parallel/no_nccl.cpp)
SIMT_FLAGS := -Itests/simt/overlay -Wno-unknown-pragmas

ABSENT_OBJ := $(ABSENT:%.cpp=$(BUILD)/obj/%.o)
GPU_OBJ    := $(ABSENT_OBJ)
GPU_LIBS   :=

MAINS     := $(wildcard tools/mimo.cpp tools/mimo-data.cpp)
TOOL_SRC  := $(filter-out $(MAINS),$(wildcard tools/*.cpp))
TOOL_OBJ  := $(TOOL_SRC:%.cpp=$(BUILD)/obj/%.o)
BENCH_OBJ := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tools/bench/*.cpp))
BIN       ?=
PROGRAMS  := $(MAINS:tools/%.cpp=$(BIN)%)

TEST_DIRS := $(filter-out mpi,$(notdir $(patsubst %/,%,$(dir $(wildcard tests/*/*_test.cpp)))))
TEST_DIRS := $(filter-out cuda simt,$(sort $(TEST_DIRS)))
TEST_BINS := $(TEST_DIRS:%=$(BUILD)/tests/%) $(BUILD)/tests/cuda $(BUILD)/tests/simt
MPI_TESTS := $(patsubst tests/mpi/%.cpp,$(BUILD)/tests/mpi/%,$(wildcard tests/mpi/*_test.cpp))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:  # keep the objects of the MPI tests
.PHONY: all check-deps deps run test test-all tests lint format bench clean help report bundle bundled test-bundle gpu-check

all: check-deps report $(PROGRAMS)

help:
	@echo "make          build ./mimo and ./mimo-data        make run    install what is missing, build, train and show"
	@echo "make test     install, build and run the tests    make bench  kernels, and the default run's profile"
	@echo "make test-all the long checks too                 make lint   formatting and include rules"
	@echo "make gpu-check  checks and measures on the GPU    make bundle  the same for a machine without a compiler, one file"
	@echo "make deps     install Debian packages             make clean  remove $(BUILD)/ and the programs"
	@echo "variables: SANITIZE=address,undefined  BUILD=dir  MARCH=native"

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
	  "$(if $(shell command -v nvcc),✓,✗) nvcc       CUDA kernels: this version computes on the CPU with or without it" \
	  "$(call have,/usr/include/nccl.h $(CUDA_HOME)/include/nccl.h) NCCL       without it ranks talk through MPI alone (Debian: libnccl-dev, or NVIDIA's packages)" \
	  "$(call have,/usr/include/cudnn.h $(CUDA_HOME)/include/cudnn.h) cuDNN      a reference for benchmarks only"

$(BUILD)/obj/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	@echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) $(MPI_INC) $(HDF5_INC) -MMD -MP -c $< -o $@

$(BUILD)/simt/%.o: %.cu Makefile
	@mkdir -p $(@D)
	@echo "  SIMT $<"
	@$(CXX) $(SIMT_FLAGS) $(CXXFLAGS) -O2 -MMD -MP -x c++ -c $< -o $@

$(BUILD)/simt/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	@echo "  SIMT $<"
	@$(CXX) $(SIMT_FLAGS) $(CXXFLAGS) -O2 $(MPI_INC) $(HDF5_INC) -MMD -MP -c $< -o $@

# ptxas says what each kernel uses; the .log beside the object keeps it for `make cubin`.
$(BUILD)/cuda/%.o: %.cu Makefile
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	@$(NVCC) $(NVCCFLAGS) -MD -MP -MF $(@:.o=.d) -c $< -o $@ 2>$(@:.o=.log) || { grep -v '^ptxas info' $(@:.o=.log); rm -f $@; exit 1; }

$(BUILD)/cuda/%.o: %.cpp Makefile
	@mkdir -p $(@D)
	@echo "  C++  $<"
	@$(CXX) $(CXXFLAGS) -isystem $(CUDA_HOME)/include $(MPI_INC) -MMD -MP -c $< -o $@

$(LIB): $(LIB_OBJ)
	@rm -f $@; ar rcs $@ $^

$(PROGRAMS): $(BIN)%: $(BUILD)/obj/tools/%.o $(TOOL_OBJ) $(GPU_OBJ) $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ $(LIBS) $(GPU_LIBS) -o $@

$(BIN)mimo-bench: $(BENCH_OBJ) $(GPU_OBJ) $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lbenchmark $(LIBS) $(GPU_LIBS) -o $@

define TEST_RULE
$(BUILD)/tests/$(1): $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/$(1)/*.cpp)) $(TOOL_OBJ) $(ABSENT_OBJ) $(LIB)
	@mkdir -p $$(@D); echo "  LINK $$@"
	@$(CXX) $(CXXFLAGS) $$^ -lgtest_main -lgtest $$(LIBS) -o $$@
endef
$(foreach d,$(TEST_DIRS),$(eval $(call TEST_RULE,$(d))))

# Kernels against the CPU's (tests/cuda), and the emulator's own tests (tests/simt).
CUDA_TEST_OBJ := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(wildcard tests/cuda/*.cpp))
SIMT_TEST_OBJ := $(patsubst %.cpp,$(BUILD)/simt/%.o,$(wildcard tests/simt/*_test.cpp))
$(BUILD)/tests/cuda: $(CUDA_TEST_OBJ) $(SIMT_OBJ) $(CPU_OBJ)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/no_nccl.o %/runtime.o,$^) -lgtest_main -lgtest -lboost_context -ldnnl -o $@

$(BUILD)/tests/simt: $(SIMT_TEST_OBJ) $(BUILD)/obj/tests/tools/program.o $(SIMT_OBJ) $(TOOL_OBJ) $(LIB) $(BUILD)/mimo-emulated
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/mimo-emulated,$^) -lgtest_main -lgtest -lboost_context $(LIBS) -o $@

# The whole program on the emulated GPU.
$(BUILD)/mimo-emulated: $(BUILD)/obj/tools/mimo.o $(SIMT_OBJ) $(TOOL_OBJ) $(LIB)
	@echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $(filter-out %/memory.o,$^) -lboost_context $(LIBS) -o $@

MPI_COMMON := $(patsubst %.cpp,$(BUILD)/obj/%.o,$(filter-out %_test.cpp,$(wildcard tests/mpi/*.cpp)))
$(BUILD)/tests/mpi/%: $(BUILD)/obj/tests/mpi/%.o $(MPI_COMMON) $(TOOL_OBJ) $(ABSENT_OBJ) $(LIB)
	@mkdir -p $(@D); echo "  LINK $@"
	@$(CXX) $(CXXFLAGS) $^ -lgtest $(LIBS) -o $@

tests: check-deps $(PROGRAMS) $(TEST_BINS) $(MPI_TESTS)

test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) tests
	@tests/run.sh $(BUILD)/tests

test-all: deps
	@$(MAKE) --no-print-directory -j$$(nproc) tests
	@MIMO_TEST_ALL=1 tests/run.sh $(BUILD)/tests

export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
run: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	mpirun --oversubscribe -n 2 ./mimo $(ARGS)

# Kernels, then the default run: tokens/s and where its time goes. ARGS chooses kernels and leaves the run out.
bench: deps
	@$(MAKE) --no-print-directory -j$$(nproc) mimo-bench all
	./mimo-bench $(ARGS)
	$(if $(ARGS),,@dir=$$(mktemp -d) && trap 'rm -rf '$$dir EXIT && \
	  mpirun --oversubscribe -n 2 ./mimo train --profile --run.dir=$$dir --train.steps=300 --eval.every=0 \
	    --checkpoint.every=0 > $$dir/log && sed -n '/profile of/,$$p' $$dir/log || { cat $$dir/log; exit 1; })

# Everything a machine with a GPU needs, in one file: unpack, ./gpu-check. The programs are built for any x86-64 with AVX2
# and for one GPU architecture, the one that the kernels are tuned on (variable CUDA_ARCH).
BUNDLE := mimo-bundle.tar.gz
bundle: deps
	@nice $(MAKE) --no-print-directory -j$$(nproc) BUILD=$(BUILD)/bundle BIN=$(BUILD)/bundle/bin/ MARCH=x86-64-v3 \
	  CUDA_ARCH="$(if $(filter command% environment%,$(origin CUDA_ARCH)),$(CUDA_ARCH),90a)" bundled
	@tools/bundle.sh $(BUNDLE) $$(find $(BUILD)/bundle/bin $(BUILD)/bundle/gpu -type f -executable 2>/dev/null)

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
	rm -rf $(BUILD) mimo mimo-data mimo-bench $(BUNDLE)

-include $(shell find $(BUILD)/obj $(BUILD)/simt $(BUILD)/cuda -name '*.d' 2>/dev/null)
