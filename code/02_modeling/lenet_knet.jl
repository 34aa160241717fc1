# LeNet-5 in Julia with Knet: the third of three ways in 01_train_lenet_three_ways.ipynb, which starts this program.
#
#   julia -O1 lenet_knet.jl --data FOLDER --order FILE --validation FILE
#                           [--learning-rate 0.002] [--seed 0] [--classes 10]
#
# FOLDER holds MNIST's IDX files, plain or as .gz; without t10k files nothing is tested. --order is an IDX file of int32
# (epochs, batches, images a batch): which training images, counted from 0, make each batch. --validation is one of
# int32 (images,): the training images that are left out, on which each epoch is judged.
#
# On standard output comes one line of JSON an epoch, and nothing else:
#
#   {"epoch": 1, "loss": 0.31, "accuracy": 0.95, "seconds": 12.3}
#
# loss is the mean over the epoch's batches, accuracy that on the validation images, seconds without judging. The last
# line has "parameters" and, with test images, "test_accuracy". Errors go to standard error and end the program with 1.
#
# Knet 1.4.10 on Julia 1.6 (julia -e 'using Pkg; Pkg.add(name="Knet", version="1.4.10")'). Everything else is Julia's
# own. The array type is named, so that it computes on the CPU, as the other two do, also where there is a GPU.

using Knet
using Random

const CPU = Array{Float32}

# == The network ==

# A layer is a struct that can be called. Knet's arrays are (width, height, channels, images): what comes first lies
# closest in memory, which is the other way round from NumPy. An IDX image read as it lies is therefore an array whose
# first index is the column.
struct Conv
    w
    b
    padding
end
Conv(side::Int, from::Int, to::Int, padding::Int) =
    Conv(param(side, side, from, to; atype=CPU), param0(1, 1, to, 1; atype=CPU), padding)

# relu before or after taking the largest of four is the same; after it there are a quarter as many to compute.
(layer::Conv)(x) = relu.(pool(conv4(layer.w, x; padding=layer.padding) .+ layer.b))

struct Dense
    w
    b
    f
end
Dense(from::Int, to::Int, f) = Dense(param(to, from; atype=CPU), param0(to; atype=CPU), f)
(layer::Dense)(x) = layer.f.(layer.w * mat(x) .+ layer.b)

struct LeNet
    layers
end
LeNet(classes::Int) = LeNet((
    Conv(5, 1, 6, 2),
    Conv(5, 6, 16, 0),
    Dense(400, 120, relu),
    Dense(120, 84, relu),
    Dense(84, classes, identity),
))

# Called with images it gives scores (classes, images); called with images and labels, the loss that is to shrink.
function (network::LeNet)(x)
    for layer in network.layers
        x = layer(x)
    end
    return x
end
(network::LeNet)(x, labels) = nll(network(x), labels)

parameters(network::LeNet) = [p for layer in network.layers for p in (layer.w, layer.b)]

# == Training ==

# Pixels 0..1 as (28, 28, 1, images) and labels from 1, as Julia and Knet count.
batch(images, labels, rows) = (reshape(Float32.(images[:, :, rows]) ./ 255, 28, 28, 1, :), labels[rows])

# For judging, 500 at a time.
parts(images, labels, rows) = (batch(images, labels, part) for part in Iterators.partition(rows, 500))

function train(network, images, labels, order, validation, rate)
    epochs = size(order, 3)
    for epoch in 1:epochs
        falling = rate * (1 - (epoch - 1) / epochs)
        # Each parameter carries the state of its own optimiser once `adam` has seen it.
        for p in parameters(network)
            p.opt === nothing || (p.opt.lr = falling)
        end
        batches = (batch(images, labels, order[:, step, epoch]) for step in 1:size(order, 2))
        started = time()
        # `adam` is lazy: each turn of this loop computes one loss, its gradients, and updates the parameters.
        total = 0.0
        for loss in adam(network, batches; lr=falling)
            total += Float64(loss)
        end
        seconds = time() - started
        correct = Float64(accuracy(network; data=parts(images, labels, validation)))
        say("epoch" => epoch, "loss" => total / size(order, 2), "accuracy" => correct, "seconds" => seconds)
    end
end

# == Files ==

fail(message) = throw(ArgumentError(message))

const IDX_TYPES = Dict(0x08 => UInt8, 0x0c => Int32)
const MAX_BYTES = 2 * 1024^3

"""
    read_idx(path)

The array in an IDX file, unpacked through gzip when its name ends in `.gz`. The dimensions come out reversed: the
format's last one runs fastest, as Julia's first one does. Only the types that are needed here are read, uint8 and
int32.
"""
read_idx(path) = endswith(path, ".gz") ? open(io -> read_idx(io, path), `gzip -dc $path`) :
    open(io -> read_idx(io, path), path)

function read_idx(io::IO, path)
    magic = read(io, 4)
    length(magic) == 4 && magic[1] == 0 && magic[2] == 0 || fail("$path is no IDX file; name another")
    haskey(IDX_TYPES, magic[3]) || fail("$path has the IDX type $(magic[3]); 8 (uint8) and 12 (int32) are read here")
    type, dimensions = IDX_TYPES[magic[3]], Int(magic[4])
    1 <= dimensions <= 8 || fail("$path claims $dimensions dimensions; it is damaged or no IDX file")
    header = read(io, 4 * dimensions)
    length(header) == 4 * dimensions || fail("$path is cut off in its header; copy or download it again")
    # Big-endian on disk; reinterpret sees the bytes as this machine orders them.
    sizes = Int.(ntoh.(reinterpret(UInt32, header)))
    wanted = prod(Int128.(sizes)) * sizeof(type)
    wanted <= MAX_BYTES || fail("$path claims $wanted bytes, more than $MAX_BYTES; it is damaged")
    values = read(io, Int(wanted))
    missing_bytes = Int(wanted) - length(values)
    missing_bytes == 0 || fail("$path is cut off: $missing_bytes of $wanted bytes are missing; get it again")
    isempty(read(io, 1)) || fail("$path is longer than its header says; get it again")
    return reshape(ntoh.(reinterpret(type, values)), reverse(sizes)...)
end

# The images (28, 28, N) and labels (N,), 1 for the first class, of one half of the set; nothing where it is absent.
function read_half(folder, half, classes)
    paths = map(("images-idx3", "labels-idx1")) do what
        names = [joinpath(folder, "$half-$what-ubyte$ending") for ending in ("", ".gz")]
        found = filter(isfile, names)
        isempty(found) ? nothing : first(found)
    end
    all(isnothing, paths) && return nothing
    any(isnothing, paths) && fail("$folder has images or labels of $half, and not both; put the other file beside it")
    images, labels = read_idx.(paths)
    ndims(images) == 3 && size(images)[1:2] == (28, 28) && eltype(images) == UInt8 ||
        fail("$(paths[1]) holds $(eltype(images)) of size $(size(images)), not grey images of 28 x 28")
    length(labels) == size(images, 3) ||
        fail("$half has $(size(images, 3)) images and $(length(labels)) labels; get both files from one source")
    all(0 .<= labels .< classes) || fail("$(paths[2]) has a label outside 0..$(classes - 1); get the file again")
    return images, Int.(labels) .+ 1
end

# Positions from a file, which count from 0 there, as Julia counts.
function read_rows(path, dimensions, count)
    rows = read_idx(path)
    ndims(rows) == dimensions || fail("$path has $(ndims(rows)) dimensions instead of $dimensions")
    all(0 .<= rows .< count) || fail("$path names an image outside 0..$(count - 1); make it anew for this data")
    return Int.(rows) .+ 1
end

# == Command line ==

# One object of JSON a line, of numbers only, at once: whoever reads it wants to see the epochs pass.
function say(pairs...)
    println("{", join(("\"$key\": $value" for (key, value) in pairs), ", "), "}")
    flush(stdout)
end

function options(arguments)
    given = Dict("learning-rate" => "0.002", "seed" => "0", "classes" => "10")
    iseven(length(arguments)) || fail("each option needs a value, such as --data FOLDER")
    for (name, value) in Iterators.partition(arguments, 2)
        name in ("--data", "--order", "--validation", "--learning-rate", "--seed", "--classes") ||
            fail("the option $name is unknown")
        given[name[3:end]] = value
    end
    for name in ("data", "order", "validation")
        haskey(given, name) || fail("--$name is missing")
    end
    return given
end

function main(arguments)
    given = options(arguments)
    classes = parse(Int, given["classes"])
    training = read_half(given["data"], "train", classes)
    training === nothing && fail("$(given["data"]) holds no train-images-idx3-ubyte or .gz; name another folder")
    images, labels = training
    order = read_rows(given["order"], 3, length(labels))
    validation = read_rows(given["validation"], 1, length(labels))

    Random.seed!(parse(Int, given["seed"]))
    network = LeNet(classes)
    count = sum(length(p.value) for p in parameters(network))
    @assert count == 60_856 + 85 * classes  # 61,706 for ten digits

    train(network, images, labels, order, validation, parse(Float64, given["learning-rate"]))

    testing = read_half(given["data"], "t10k", classes)
    if testing === nothing
        say("parameters" => count)
    else
        correct = Float64(accuracy(network; data=parts(testing..., 1:length(testing[2]))))
        say("parameters" => count, "test_accuracy" => correct)
    end
end

if abspath(PROGRAM_FILE) == @__FILE__
    try
        main(ARGS)
    catch error
        error isa ArgumentError || rethrow()
        println(stderr, error.msg)
        exit(1)
    end
end
