# A handful of verbs to work by.
.PHONY: install check test native bench

install:  ## everything, at the pinned versions
	pip install -c constraints.txt -e '.[dev]'

check:  ## style and types
	ruff check .
	ruff format --check .
	mypy

test:
	python -m pytest -n 2

native:  ## the engine's own tests, in C++
	cmake -S native -B build/native
	cmake --build build/native --parallel
	ctest --test-dir build/native --output-on-failure

bench:  ## every table in benchmarks/results; wants an otherwise idle machine
	python benchmarks/grouped_forms.py
	python benchmarks/torch_inference.py
	python benchmarks/finetune_speed.py
	python benchmarks/classify_memory.py
	python benchmarks/pretrain_speed.py --corpus $(CORPUS)
	squeezebert bench --output out/bench
